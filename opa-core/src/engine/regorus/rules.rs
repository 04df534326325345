//! Which rules and packages lie at which paths.

use std::collections::BTreeMap;

use regorus::unstable::{Module, Ref};

use super::heads::{Definition, definition, package};
use super::paths::{location, rule_name};
use crate::engine::{CompileError, Location};
use crate::{Kind, Value};

/// The rules and packages of a policy by their paths below `data`.
#[derive(Debug)]
pub(super) struct Rules {
    nodes: Vec<Node>,
}

/// What lies at one path.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) children: BTreeMap<String, NodeId>,
    /// The first rule that gives the document here a value.
    value: Option<Location>,
    /// regorus knows the path as that of a rule, so that it can be asked without a query.
    direct: bool,
    /// The first function here and its number of arguments.
    function: Option<(Location, usize)>,
    /// The packages with this very path.
    packages: Vec<Location>,
}

/// The place of a node; the root is 0.
pub(super) type NodeId = usize;

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A rule at the first `names` names of the path.
    Rule { names: usize, direct: bool },
    /// A package, or a part of a path above rules.
    Document,
    /// Nothing that a module defines.
    Nothing,
}

impl Rules {
    /// # Errors
    /// For each package that has the path of a rule.
    pub(super) fn read(modules: &[Ref<Module>]) -> Result<Self, Vec<CompileError>> {
        let mut rules = Self {
            nodes: vec![Node::default()],
        };
        for module in modules {
            let package = package(module);
            let node = rules.insert(&package);
            if let Some(node) = rules.nodes.get_mut(node) {
                node.packages.push(location(&module.package.refr));
            }
            for rule in &module.policy {
                rules.define(&package, definition(rule));
            }
        }
        let conflicts = rules.package_conflicts();
        if conflicts.is_empty() {
            Ok(rules)
        } else {
            Err(conflicts)
        }
    }

    fn define(&mut self, package: &[String], definition: Option<Definition>) {
        let Some(definition) = definition else { return };
        let path: Vec<_> = package.iter().chain(&definition.names).cloned().collect();
        let node = self.insert(&path);
        let Some(node) = self.nodes.get_mut(node) else {
            return;
        };
        match definition.arguments {
            Some(arguments) => {
                node.function
                    .get_or_insert((definition.location, arguments));
            }
            None => {
                node.value.get_or_insert(definition.location);
                node.direct |= definition.direct;
            }
        }
    }

    fn insert(&mut self, path: &[String]) -> NodeId {
        path.iter().fold(0, |parent, name| {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(parent) else {
                return parent;
            };
            let child = *node.children.entry(name.clone()).or_insert(next);
            if child == next {
                self.nodes.push(Node::default());
            }
            child
        })
    }

    fn package_conflicts(&self) -> Vec<CompileError> {
        let conflicts = self.nodes.iter().enumerate().flat_map(|(id, node)| {
            node.rule().into_iter().flat_map(move |rule| {
                node.packages
                    .iter()
                    .map(move |package| self.package_conflict(id, rule, package))
            })
        });
        conflicts.collect()
    }

    fn package_conflict(&self, id: NodeId, rule: &Location, package: &Location) -> CompileError {
        let name = self.name(id);
        let path = name.strip_prefix("data.").unwrap_or(&name);
        let Location { file, row, .. } = rule;
        let text = format!("package {path} conflicts with the rule defined at {file}:{row}");
        CompileError::new(CompileError::TYPE, text).at(package.clone())
    }

    /// The node at a place.
    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The path of a node, with `data`.
    pub(super) fn name(&self, id: NodeId) -> String {
        let mut names = Vec::new();
        let mut child = id;
        while child != 0 {
            // Parents are made before their children.
            let parent = self
                .nodes
                .iter()
                .take(child)
                .enumerate()
                .find_map(|(parent, node)| {
                    let name = node.children.iter().find(|(_, id)| **id == child)?.0;
                    Some((parent, name.as_str()))
                });
            let Some((parent, name)) = parent else { break };
            names.push(name);
            child = parent;
        }
        rule_name(names.into_iter().rev())
    }

    /// The nodes along a path from the root, as far as there are any.
    pub(super) fn along<'r, 'p>(
        &'r self,
        path: impl IntoIterator<Item = &'p str>,
    ) -> impl Iterator<Item = (NodeId, &'r Node)> {
        let children = path.into_iter().scan(0, |parent, name| {
            let child = *self.nodes.get(*parent)?.children.get(name)?;
            *parent = child;
            Some((child, self.nodes.get(child)?))
        });
        self.nodes
            .first()
            .map(|root| (0, root))
            .into_iter()
            .chain(children)
    }

    /// The node at exactly `path`.
    pub(super) fn at(&self, path: &[String]) -> Option<(NodeId, &Node)> {
        self.along(path.iter().map(String::as_str)).nth(path.len())
    }

    /// The arguments of the function at exactly `path`.
    pub(super) fn function(&self, path: &[String]) -> Option<(NodeId, usize)> {
        let (id, node) = self.at(path)?;
        node.function
            .as_ref()
            .map(|(_, arguments)| (id, *arguments))
    }

    /// What lies at `path`.
    pub(super) fn find(&self, path: &[&str]) -> Found {
        let mut names = 0;
        let mut last = None;
        for (depth, (_, node)) in self.along(path.iter().copied()).enumerate() {
            if node.value.is_some() {
                return Found::Rule {
                    names: depth,
                    direct: node.direct,
                };
            }
            names = depth;
            last = Some(node);
        }
        match last {
            Some(node) if names == path.len() && !node.is_only_function() => Found::Document,
            _ => Found::Nothing,
        }
    }

    /// Whether there is a rule at `path`, above it or below it.
    pub(super) fn defines(&self, path: &[&str]) -> bool {
        match self.find(path) {
            Found::Rule { .. } => true,
            Found::Document => {
                let below = self.along(path.iter().copied()).nth(path.len());
                below.is_some_and(|(_, node)| self.has_rules(node))
            }
            Found::Nothing => false,
        }
    }

    fn has_rules(&self, node: &Node) -> bool {
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            if node.value.is_some() {
                return true;
            }
            pending.extend(node.children.values().filter_map(|id| self.nodes.get(*id)));
        }
        false
    }

    /// The rules whose document is in `data` already, with OPA's text.
    pub(super) fn data_conflicts(&self, data: &Value) -> Vec<CompileError> {
        let mut conflicts = Vec::new();
        let mut pending = vec![(0, Some(data), Vec::new())];
        while let Some((id, data, path)) = pending.pop() {
            let (Some(node), Some(data)) = (self.nodes.get(id), data) else {
                continue;
            };
            if let Some(rule) = node.rule() {
                let path = path.join("/");
                let text = format!("conflicting rule for data path {path} found");
                conflicts.push(CompileError::new(CompileError::COMPILE, text).at(rule.clone()));
                continue;
            }
            for (name, child) in node.children.iter().rev() {
                // Below anything but an object no document can lie.
                let below = if data.kind() == Kind::Object {
                    data.get(name)
                } else {
                    Some(data)
                };
                let mut path = path.clone();
                path.push(name.as_str());
                pending.push((*child, below, path));
            }
        }
        conflicts
    }
}

impl Node {
    /// Whether a rule gives the document here a value.
    pub(super) fn has_value(&self) -> bool {
        self.value.is_some()
    }

    /// The first rule or function here.
    pub(super) fn rule(&self) -> Option<&Location> {
        self.value
            .as_ref()
            .or(self.function.as_ref().map(|(location, _)| location))
    }

    fn is_only_function(&self) -> bool {
        self.function.is_some() && self.children.is_empty()
    }
}
