//! The parts of parsed expressions.

use regorus::unstable::{Expr, Literal, Query};

use super::paths::{Tail, static_path};

/// The direct parts of an expression, without queries.
pub(super) fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().map(AsRef::as_ref).collect()
        }
        Expr::Object { fields, .. } => fields
            .iter()
            .flat_map(|(_, key, value)| [key.as_ref(), value.as_ref()])
            .collect(),
        Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => vec![term],
        Expr::ObjectCompr { key, value, .. } => vec![key, value],
        Expr::Call { params, .. } => params.iter().map(AsRef::as_ref).collect(),
        Expr::UnaryExpr { expr, .. } => vec![expr],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
        Expr::Membership {
            key,
            value,
            collection,
            ..
        } => {
            let key = key.as_ref().map(AsRef::as_ref);
            key.into_iter()
                .chain([value.as_ref(), collection.as_ref()])
                .collect()
        }
        Expr::RefDot { refr, .. } => vec![refr],
        Expr::RefBrack { refr, index, .. } => vec![refr, index],
        _ => Vec::new(),
    }
}

/// The query of a comprehension.
pub(super) fn inner_query(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::ArrayCompr { query, .. }
        | Expr::SetCompr { query, .. }
        | Expr::ObjectCompr { query, .. } => Some(query),
        _ => None,
    }
}

/// How many loops the statements of a query may make, each within the ones before it.
pub(super) fn loops_of(query: &Query) -> u64 {
    let mut loops = 0;
    let mut pending: Vec<&Expr> = Vec::new();
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn {
                value, collection, ..
            } => {
                loops += 1;
                pending.extend([value.as_ref(), collection.as_ref()]);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => pending.push(expr),
            Literal::Every { domain, .. } => pending.push(domain),
        }
    }
    while let Some(expr) = pending.pop() {
        let is_loop = match expr {
            Expr::RefBrack { .. } => {
                static_path(expr).is_none_or(|path| path.tail != Tail::Nothing)
            }
            Expr::Call { fcn, .. } => fcn.span().text() == "walk",
            _ => false,
        };
        loops += u64::from(is_loop);
        pending.extend(children(expr));
    }
    loops
}
