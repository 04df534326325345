//! What OPA refuses at load and regorus finds out during an evaluation, or never.
//!
//! - A function that is not defined (regorus: an error when the call is reached), or is called
//!   with a wrong number of arguments.
//! - Functions that call each other in a circle, and rules that depend on each other in a chain
//!   too long for the stack (regorus: the process aborts).
//! - `walk` in another form than `walk(x, [path, value])` (regorus: it yields nothing, so that
//!   `not walk(…)` would open).

use std::collections::HashMap;

use regorus::unstable::{BUILTINS, Import, Module, Ref};

use super::graph::{cycle, heaviest_path};
use super::heads::{definition, package};
use super::paths::{location, static_path};
use super::rules::{NodeId, Rules};
use super::uses::{Call, Reference, Uses};
use crate::engine::{CompileError, Location};

/// OPA's code of rules that depend on themselves.
const RECURSION: &str = "rego_recursion_error";

/// How much stack a chain of rules may need, in KiB: what an evaluation has on a pool's thread
/// (64 MiB), without what is used around it.
const MAX_STACK: u64 = 56 * 1024;

/// Checks parsed modules.
///
/// # Errors
/// All that was found, in the order of the modules.
pub(super) fn check(modules: &[Ref<Module>], rules: &Rules) -> Result<(), Vec<CompileError>> {
    let mut check = Check {
        rules,
        weights: vec![0; rules.len()],
        edges: (0..rules.len()).map(|id| structure(rules, id)).collect(),
        calls: vec![Vec::new(); rules.len()],
        errors: Vec::new(),
    };
    for module in modules {
        check.module(module);
    }
    check.finish()
}

struct Check<'r> {
    rules: &'r Rules,
    /// What evaluating each node's rules takes of the stack, in KiB.
    weights: Vec<u64>,
    /// Which nodes are evaluated for a node.
    edges: Vec<Vec<NodeId>>,
    /// The same, functions only.
    calls: Vec<Vec<NodeId>>,
    errors: Vec<CompileError>,
}

/// The document of a node is made of those below it.
fn structure(rules: &Rules, id: NodeId) -> Vec<NodeId> {
    rules
        .node(id)
        .map(|node| node.children.values().copied().collect())
        .unwrap_or_default()
}

/// What names mean in one module.
struct Names<'m> {
    package: &'m [String],
    /// The targets of imports below `data`, by the names they have here; `None` below `input`.
    imports: HashMap<String, Option<Vec<String>>>,
}

/// What is called.
enum Callee {
    Function { node: NodeId, arity: usize },
    Builtin { arity: Option<usize> },
    Unknown,
}

impl Check<'_> {
    fn module(&mut self, module: &Module) {
        let package = package(module);
        let names = Names {
            package: &package,
            imports: imports(module),
        };
        for rule in &module.policy {
            let Some(definition) = definition(rule) else {
                continue;
            };
            let path: Vec<_> = package.iter().chain(&definition.names).cloned().collect();
            let Some((node, _)) = self.rules.at(&path) else {
                continue;
            };
            let uses = Uses::of(rule);
            if let Some(weight) = self.weights.get_mut(node) {
                *weight = uses.stack.max(*weight);
            }
            for call in &uses.calls {
                self.call(node, call, &names);
            }
            for function in &uses.replacements {
                if let Some((function, _)) = self.function(function, &names) {
                    self.depend_on_function(node, function);
                }
            }
            for reference in &uses.references {
                if !uses
                    .locals
                    .contains(reference.names.first().map_or("", String::as_str))
                {
                    self.reference(node, reference, &names);
                }
            }
        }
    }

    fn call(&mut self, from: NodeId, call: &Call<'_>, names: &Names<'_>) {
        let name = call.names.join(".");
        let error = match self.callee(&call.names, names) {
            Callee::Unknown => Some(format!("undefined function {name}")),
            Callee::Builtin { .. } if name == "walk" && !(call.is_statement && call.count == 2) => {
                Some("walk: this engine supports the form walk(x, [path, value]) only".to_owned())
            }
            Callee::Builtin { arity } => {
                let fits = arity.is_none_or(|arity| call.fits(arity));
                (!fits).then(|| format!("{name}: arity mismatch"))
            }
            Callee::Function { node, arity } => {
                self.depend_on_function(from, node);
                let (name, count) = (self.rules.name(node), call.count);
                let text = || format!("function {name} has arity {arity}, got {count} arguments");
                (!call.fits(arity)).then(text)
            }
        };
        self.errors.extend(
            error.map(|text| {
                CompileError::new(CompileError::TYPE, text).at(location(call.function))
            }),
        );
    }

    fn callee(&self, name: &[String], names: &Names<'_>) -> Callee {
        if let Some((node, arity)) = self.function(name, names) {
            return Callee::Function { node, arity };
        }
        let name = name.join(".");
        if name == "print" {
            return Callee::Builtin { arity: None };
        }
        match BUILTINS
            .get(name.as_str())
            .filter(|_| !name.starts_with("__"))
        {
            Some((_, arity)) => Callee::Builtin {
                arity: Some(usize::from(*arity)),
            },
            None => Callee::Unknown,
        }
    }

    fn function(&self, name: &[String], names: &Names<'_>) -> Option<(NodeId, usize)> {
        let (root, rest) = name.split_first()?;
        if root == "data" {
            return self.rules.function(rest);
        }
        let own: Vec<_> = names.package.iter().chain(name).cloned().collect();
        let imported = names.imports.get(root).and_then(Option::as_ref);
        let imported =
            imported.map(|target| target.iter().chain(rest).cloned().collect::<Vec<_>>());
        imported
            .and_then(|path| self.rules.function(&path))
            .or_else(|| self.rules.function(&own))
    }

    fn reference(&mut self, from: NodeId, reference: &Reference, names: &Names<'_>) {
        let Some((root, rest)) = reference.names.split_first() else {
            return;
        };
        let path: Vec<_> = match names.imports.get(root) {
            _ if root == "data" => rest.to_vec(),
            _ if root == "input" => return,
            Some(Some(target)) => target.iter().chain(rest).cloned().collect(),
            Some(None) => return,
            None => names
                .package
                .iter()
                .chain(&reference.names)
                .cloned()
                .collect(),
        };
        let along: Vec<_> = self.rules.along(path.iter().map(String::as_str)).collect();
        // A rule above gives the document; else all rules below do.
        let used = along
            .iter()
            .enumerate()
            .filter(|(depth, (_, node))| *depth == path.len() || node.has_value());
        let used: Vec<_> = used.map(|(_, (id, _))| *id).collect();
        self.edges
            .get_mut(from)
            .into_iter()
            .for_each(|edges| edges.extend(&used));
    }

    fn depend_on_function(&mut self, from: NodeId, function: NodeId) {
        for edges in [&mut self.edges, &mut self.calls] {
            edges
                .get_mut(from)
                .into_iter()
                .for_each(|edges| edges.push(function));
        }
    }

    fn finish(mut self) -> Result<(), Vec<CompileError>> {
        if let Some(cycle) = cycle(&self.calls) {
            let names: Vec<_> = cycle.iter().map(|id| self.rules.name(*id)).collect();
            let first = names.first().cloned().unwrap_or_default();
            let text = format!("rule {first} is recursive: {}", names.join(" -> "));
            let place = cycle
                .first()
                .and_then(|id| self.rules.node(*id)?.rule().cloned());
            self.errors
                .push(at(CompileError::new(RECURSION, text), place));
        } else if heaviest_path(&self.weights, &self.edges) > MAX_STACK {
            let text = "the rules depend on each other in a chain that is too long for this engine";
            self.errors
                .push(CompileError::new(CompileError::COMPILE, text));
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(self.errors)
        }
    }
}

fn at(error: CompileError, place: Option<Location>) -> CompileError {
    match place {
        Some(place) => error.at(place),
        None => error,
    }
}

fn imports(module: &Module) -> HashMap<String, Option<Vec<String>>> {
    let read = |import: &Import| {
        let path = static_path(&import.refr)?.names;
        let alias = import.r#as.as_ref().map(|alias| alias.text().to_owned());
        let name = alias.or_else(|| path.last().cloned())?;
        let (root, rest) = path.split_first()?;
        match root.as_str() {
            "data" => Some((name, Some(rest.to_vec()))),
            "input" => Some((name, None)),
            _ => None,
        }
    };
    module.imports.iter().filter_map(read).collect()
}
