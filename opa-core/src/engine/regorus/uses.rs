//! What one rule calls, refers to and takes of the stack.

use std::collections::HashSet;

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead};

use super::exprs::{children, inner_query, loops_of};
use super::paths::{StaticPath, function_name, static_path};

/// What the steps of an evaluation take of the stack in KiB: more than was measured in a debug
/// build, where they take about six times as much as in a release build.
mod stack {
    /// The evaluation of a rule or function.
    pub(super) const RULE: u64 = 18;
    /// A body, a comprehension or `every`.
    pub(super) const QUERY: u64 = 14;
    /// One level of an expression.
    pub(super) const LEVEL: u64 = 5;
    /// A level that is a call takes more.
    pub(super) const CALL: u64 = 8;
    /// A loop within the loops before it.
    pub(super) const LOOP: u64 = 18;
}

/// What one rule uses.
#[derive(Default)]
pub(super) struct Uses<'a> {
    pub(super) calls: Vec<Call<'a>>,
    /// The functions that `with … as` may put in another's place.
    pub(super) replacements: Vec<Vec<String>>,
    pub(super) references: Vec<Reference>,
    /// The variables that the rule declares.
    pub(super) locals: HashSet<&'a str>,
    /// KiB of the stack.
    pub(super) stack: u64,
    pending: Vec<Step<'a>>,
}

/// A call of a function.
pub(super) struct Call<'a> {
    pub(super) names: Vec<String>,
    pub(super) function: &'a Expr,
    /// The number of arguments.
    pub(super) count: usize,
    /// The call is a statement, without `not`.
    pub(super) is_statement: bool,
}

impl Call<'_> {
    /// Whether the arguments are `arity` ones, or these and what is expected of the call.
    pub(super) fn fits(&self, arity: usize) -> bool {
        self.count == arity || self.count == arity + 1
    }
}

/// A reference to a variable or document.
pub(super) struct Reference {
    /// The root and what follows it, as far as it is known.
    pub(super) names: Vec<String>,
}

enum Step<'a> {
    Expr {
        expr: &'a Expr,
        stack: u64,
        is_statement: bool,
    },
    Query {
        query: &'a Query,
        stack: u64,
    },
}

impl<'a> Uses<'a> {
    pub(super) fn of(rule: &'a Rule) -> Self {
        let mut uses = Self::default();
        uses.begin(rule);
        while let Some(step) = uses.pending.pop() {
            match step {
                Step::Expr {
                    expr,
                    stack,
                    is_statement,
                } => uses.expr(expr, stack, is_statement),
                Step::Query { query, stack } => uses.query(query, stack),
            }
        }
        uses
    }

    fn begin(&mut self, rule: &'a Rule) {
        match rule {
            Rule::Default { value, args, .. } => {
                args.iter().for_each(|arg| self.declare(arg));
                self.visit(value, stack::RULE);
            }
            Rule::Spec { head, bodies, .. } => {
                let values = match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        self.indices(refr, stack::RULE);
                        assign.as_ref().map(|assign| &assign.value)
                    }
                    RuleHead::Set { refr, key, .. } => {
                        self.indices(refr, stack::RULE);
                        key.as_ref()
                    }
                    RuleHead::Func { args, assign, .. } => {
                        args.iter().for_each(|arg| self.declare(arg));
                        args.iter().for_each(|arg| self.visit(arg, stack::RULE));
                        assign.as_ref().map(|assign| &assign.value)
                    }
                };
                // The head is evaluated within the loops of the body.
                let loops = bodies
                    .iter()
                    .map(|body| loops_of(&body.query))
                    .max()
                    .unwrap_or(0);
                let inner = stack::RULE + stack::LOOP * loops;
                values
                    .into_iter()
                    .for_each(|value| self.visit(value, inner));
                for body in bodies {
                    body.assign
                        .iter()
                        .for_each(|assign| self.visit(&assign.value, inner));
                    self.pending.push(Step::Query {
                        query: &body.query,
                        stack: stack::RULE,
                    });
                }
            }
        }
    }

    fn visit(&mut self, expr: &'a Expr, stack: u64) {
        self.pending.push(Step::Expr {
            expr,
            stack,
            is_statement: false,
        });
    }

    fn query(&mut self, query: &'a Query, stack: u64) {
        let stack = stack + stack::QUERY + stack::LOOP * loops_of(query);
        for statement in &query.stmts {
            self.statement(statement, stack);
        }
    }

    fn statement(&mut self, statement: &'a LiteralStmt, stack: u64) {
        match &statement.literal {
            Literal::SomeVars { vars, .. } => {
                self.locals.extend(vars.iter().map(|var| var.text()));
            }
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                for pattern in key.iter().chain([value]) {
                    self.declare(pattern);
                    self.visit(pattern, stack);
                }
                self.visit(collection, stack);
            }
            Literal::Expr { expr, .. } => {
                self.pending.push(Step::Expr {
                    expr,
                    stack,
                    is_statement: true,
                });
            }
            Literal::NotExpr { expr, .. } => self.visit(expr, stack),
            Literal::Every {
                key,
                value,
                domain,
                query,
                ..
            } => {
                self.locals
                    .extend(key.iter().chain([value]).map(|var| var.text()));
                self.visit(domain, stack);
                self.pending.push(Step::Query { query, stack });
            }
        }
        for modifier in &statement.with_mods {
            self.replacements.extend(function_name(&modifier.r#as));
            self.visit(&modifier.r#as, stack);
        }
    }

    fn expr(&mut self, expr: &'a Expr, stack: u64, is_statement: bool) {
        let stack = stack + stack::LEVEL;
        self.stack = stack.max(self.stack);
        match expr {
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                self.references
                    .extend(static_path(expr).map(|StaticPath { names, .. }| Reference { names }));
                self.indices(expr, stack);
            }
            Expr::Call { fcn, params, .. } => {
                let names = function_name(fcn).unwrap_or_default();
                self.calls.push(Call {
                    names,
                    function: fcn,
                    count: params.len(),
                    is_statement,
                });
                let stack = stack + stack::CALL;
                self.stack = stack.max(self.stack);
                params.iter().for_each(|param| self.visit(param, stack));
            }
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                if *op == AssignOp::ColEq {
                    self.declare(lhs);
                }
                self.visit(lhs, stack);
                self.visit(rhs, stack);
            }
            _ => {
                children(expr)
                    .into_iter()
                    .for_each(|child| self.visit(child, stack));
                if let Some(query) = inner_query(expr) {
                    self.pending.push(Step::Query { query, stack });
                    // What is collected is evaluated within the loops of the query.
                    let inner = stack + stack::QUERY + stack::LOOP * loops_of(query);
                    self.stack = inner.max(self.stack);
                }
            }
        }
    }

    /// Visits what stands in the brackets of a reference, and its root if that is no name.
    fn indices(&mut self, expr: &'a Expr, stack: u64) {
        let mut expr = expr;
        loop {
            match expr {
                Expr::RefDot { refr, .. } => expr = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.visit(index, stack);
                    expr = refr;
                }
                Expr::Var { .. } => return,
                other => return self.visit(other, stack),
            }
        }
    }

    /// Notes the variables of a pattern.
    fn declare(&mut self, pattern: &'a Expr) {
        let mut pending = vec![pattern];
        while let Some(expr) = pending.pop() {
            match expr {
                Expr::Var { span, .. } => {
                    self.locals.insert(span.text());
                }
                _ => pending.extend(children(expr)),
            }
        }
    }
}
