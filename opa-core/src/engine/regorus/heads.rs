//! Where modules and rules say that they are.

use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead};

use super::paths::{StaticPath, Tail, location, static_path};
use crate::engine::Location;

/// How a rule defines its document.
pub(super) struct Definition {
    /// Where, below its package.
    pub(super) names: Vec<String>,
    /// regorus knows the path as that of a rule.
    pub(super) direct: bool,
    /// The number of arguments of a function.
    pub(super) arguments: Option<usize>,
    pub(super) location: Location,
}

/// The path of a module's package, below `data`.
pub(super) fn package(module: &Module) -> Vec<String> {
    static_path(&module.package.refr)
        .map(|path| path.names)
        .unwrap_or_default()
}

/// How a rule defines its document; `None` if its head is no reference.
pub(super) fn definition(rule: &Rule) -> Option<Definition> {
    let (refr, arguments, is_old_set) = match rule {
        Rule::Spec {
            head: RuleHead::Compr { refr, .. },
            ..
        } => (refr, None, false),
        Rule::Spec {
            head: RuleHead::Set { refr, key, .. },
            ..
        } => (refr, None, key.is_none()),
        Rule::Spec {
            head: RuleHead::Func { refr, args, .. },
            ..
        } => (refr, arity(args), false),
        Rule::Default { refr, args, .. } => match refr.as_ref() {
            // `default p["q"] := …` belongs to the document at `p`.
            Expr::RefBrack { refr, .. } => (refr, arity(args), false),
            _ => (refr, arity(args), false),
        },
    };
    let StaticPath {
        mut names,
        mut tail,
    } = static_path(refr)?;
    if is_old_set && tail == Tail::Nothing && names.len() > 1 {
        // `p.q { … }` in v0: a set at `p` that has the item "q".
        names.pop();
        tail = Tail::More;
    }
    let direct = tail != Tail::More;
    Some(Definition {
        names,
        direct,
        arguments,
        location: location(refr),
    })
}

/// A function without arguments is a rule.
fn arity(arguments: &[Ref<Expr>]) -> Option<usize> {
    Some(arguments.len()).filter(|count| *count > 0)
}
