//! The mask policy's answer: what is removed from an event, or set in it.
//!
//! A mask is an array or set of paths, to be removed, and of objects: `{"op": "remove", "path": p}`
//! or `{"op": "upsert", "path": p, "value": v}`. A path starts with `/input`, `/result` or
//! `/nd_builtin_cache`; its further segments are keys, and indices of arrays. As in OPA:
//!
//! - Rules are applied in their order (those of a set in Rego's order), each to what the ones
//!   before it left. A path that leads nowhere is passed over.
//! - Keys are compared with the *escaped* segment (as `url.PathEscape` of Go does it), so a key
//!   with a character that a URL escapes, such as a space, can't be named; a `%2F` in a path
//!   becomes `%252F`.
//! - `upsert` makes the objects that are missing on the way, and items of arrays only where there
//!   are some.
//! - What was done stands in `erased` and `masked`.
//!
//! Unlike in OPA, where one bad rule loses the event, and unlike a log that isn't masked, an event
//! whose mask can't be applied as a whole is delivered [withheld](withhold).
//!
//! ```
//! use opa_core::plugin::{Event, EventInput, Labels};
//! use opa_core::{AppId, Reason, Value};
//! use opa_plugins::decision_logs::mask::MaskRules;
//! use std::time::SystemTime;
//!
//! let (app, labels) = (AppId::new("shop")?, Labels::new([]));
//! let mut event = Event::new(app, labels, "7".into(), Reason::Decided, SystemTime::now());
//! event.input = EventInput::Built(Value::from_json(br#"{"user": "ann", "password": "x"}"#)?);
//!
//! let answer = Value::from_json(br#"["/input/password"]"#)?;
//! MaskRules::from_answer(Some(&answer))?.apply(&mut event)?;
//! assert_eq!(&*event.erased[0], "/input/password");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod rule;
mod tree;

use opa_core::Value;
use opa_core::plugin::{Event, EventInput};

pub use error::MaskError;
use rule::{Op, Part, Rule};
use tree::Tree;

/// The most rules that one mask may have.
pub const MAX_RULES: usize = 10_000;

/// How much work one mask may be: bytes of paths, segments walked, and items and members of the
/// containers on the way. An event has a few thousand of those.
pub const MAX_WORK: usize = 16_000_000;

/// The rules of one mask. See the [module docs](self).
#[derive(Clone, Debug, Default)]
pub struct MaskRules {
    rules: Vec<Rule>,
    work: usize,
}

impl MaskRules {
    /// Reads the answer of the mask policy; `None` is undefined, which is no rules at all.
    ///
    /// # Errors
    /// When the answer is of another type, one of its elements is no rule, or there are too many.
    pub fn from_answer(answer: Option<&Value>) -> Result<Self, MaskError> {
        let Some(answer) = answer else {
            return Ok(Self::default());
        };
        let items = match (answer.as_array(), answer.as_set()) {
            (Some(items), _) => items.iter(),
            (None, Some(set)) => set.iter(),
            (None, None) => return Err(MaskError::NoCollection),
        };
        if items.len() > MAX_RULES {
            return Err(MaskError::TooManyRules);
        }
        let mut budget = Budget(MAX_WORK);
        let mut rules = Vec::with_capacity(items.len());
        for item in items {
            rules.push(Rule::read(item, &mut budget)?);
        }
        let work = MAX_WORK - budget.0;
        Ok(Self { rules, work })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Applies all rules. A deferred input is built if one of them is about the input.
    ///
    /// # Errors
    /// When it would be more work than a mask may be. The event is as it was then, but for an
    /// input that is no longer deferred.
    pub fn apply(&self, event: &mut Event) -> Result<(), MaskError> {
        if self.rules.iter().any(|rule| rule.part == Part::Input)
            && let EventInput::Deferred(input) = &event.input
        {
            event.input = EventInput::Built(input.build());
        }
        let mut input = Document::new(match &event.input {
            EventInput::Built(input) => Some(input),
            EventInput::None | EventInput::Deferred(_) | EventInput::Withheld => None,
        });
        let mut result = Document::new(event.result.as_ref());
        let mut cache = Document::new(event.nd_builtin_cache.as_ref());
        let (mut erased, mut masked) = (Vec::new(), Vec::new());
        let mut budget = Budget(MAX_WORK - self.work);
        for rule in &self.rules {
            let document = match rule.part {
                Part::Input => &mut input,
                Part::Result => &mut result,
                Part::NdBuiltinCache => &mut cache,
            };
            if document.apply(rule, &mut budget)? {
                match rule.op {
                    Op::Remove => erased.push(rule.path.clone()),
                    Op::Upsert(_) => masked.push(rule.path.clone()),
                }
            }
        }
        if input.touched {
            event.input = input.finish().map_or(EventInput::None, EventInput::Built);
        }
        if result.touched {
            event.result = result.finish();
        }
        if cache.touched {
            event.nd_builtin_cache = cache.finish();
        }
        event.erased.extend(erased);
        event.masked.extend(masked);
        Ok(())
    }
}

/// Removes from an event what a mask might have had to hide: input, result, `nd_builtin_cache`,
/// and the text of its error. `custom.withheld` tells why; `why` must not have values of the event.
pub fn withhold(event: &mut Event, why: &str) {
    event.withhold(why);
}

/// One of the parts of an event that masks are about, while rules are applied to it.
struct Document {
    tree: Option<Tree>,
    touched: bool,
}

impl Document {
    fn new(value: Option<&Value>) -> Self {
        Self {
            tree: value.cloned().map(Tree::new),
            touched: false,
        }
    }

    /// Whether there was something to do.
    fn apply(&mut self, rule: &Rule, budget: &mut Budget) -> Result<bool, MaskError> {
        let Some(tree) = &mut self.tree else {
            return Ok(false);
        };
        let applied = match (&rule.op, &*rule.segments) {
            (Op::Remove, []) => {
                self.tree = None;
                true
            }
            (Op::Upsert(value), []) => {
                self.tree = Some(Tree::new(value.clone()));
                true
            }
            (Op::Remove, segments) => tree.remove(segments, budget)?,
            (Op::Upsert(value), segments) => tree.upsert(segments, value, budget)?,
        };
        self.touched |= applied;
        Ok(applied)
    }

    fn finish(self) -> Option<Value> {
        self.tree.map(Tree::into_value)
    }
}

/// What is left of [`MAX_WORK`].
struct Budget(usize);

impl Budget {
    fn spend(&mut self, work: usize) -> Result<(), MaskError> {
        self.0 = self.0.checked_sub(work).ok_or(MaskError::TooMuchWork)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
