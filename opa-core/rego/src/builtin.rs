//! Built-in functions of the user's own.
//!
//! ```
//! use opa_rego::{Value, builtin::{Builtin, BuiltinError}, eval::EvalContext};
//!
//! struct Greet;
//!
//! impl Builtin for Greet {
//!     fn name(&self) -> &str {
//!         "acme.greet"
//!     }
//!     fn arity(&self) -> usize {
//!         1
//!     }
//!     fn call(&self, args: &[Value], _: &mut EvalContext) -> Result<Value, BuiltinError> {
//!         let name = args.first().and_then(Value::as_str);
//!         let name = name.ok_or_else(|| BuiltinError::new("operand 1 must be a string"))?;
//!         Ok(Value::from(format!("hello {name}")))
//!     }
//! }
//! ```

use std::fmt;

use crate::Value;
use crate::eval::EvalContext;

/// A built-in function that policies can call by its name.
pub trait Builtin: Send + Sync + 'static {
    /// The dotted name, such as `acme.greet`.
    fn name(&self) -> &str;

    /// The number of arguments.
    fn arity(&self) -> usize;

    /// The function itself. It must charge its work to `ctx`.
    ///
    /// # Errors
    /// An error makes the call undefined, as OPA does outside strict mode.
    fn call(&self, args: &[Value], ctx: &mut EvalContext) -> Result<Value, BuiltinError>;
}

impl fmt::Debug for dyn Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Builtin({}/{})", self.name(), self.arity())
    }
}

/// Why a built-in has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltinError(String);

impl BuiltinError {
    /// An error with a text as OPA's: lower case, no full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for BuiltinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BuiltinError {}
