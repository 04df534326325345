//! The engine on the crate [regorus](https://docs.rs/regorus).
//!
//! `screening` refuses what regorus must not see, `policy` compiles, `check` refuses what OPA would
//! refuse, `rules` knows what lies at which path, `bound` evaluates, `guards` bounds built-ins.

mod bound;
mod check;
mod conversions;
mod convert;
mod exprs;
mod graph;
mod guards;
mod heads;
mod paths;
mod policy;
mod rego_v2;
mod rules;
mod screening;
mod text;
mod uses;

use std::sync::Arc;

pub use opa_rego::screen::Limits;

use super::{CompileError, CompileErrors, CompileOptions, Engine, ModuleSet, Policy, Scheduling};
use conversions::Conversions;
use policy::RegorusPolicy;

/// The engine on the crate [regorus](https://docs.rs/regorus) 0.14.1, for trusted policies.
///
/// It answers most policies as OPA does, but not all (see below). Modules are screened before
/// regorus sees them, and checked after it has parsed them: functions that nobody defines, calls
/// with a wrong number of arguments, functions that call themselves, rules in the place of data or
/// of a package are errors of [`Engine::compile`] or [`Policy::bind`]. Modules in Rego v0 and v1
/// work together.
///
/// # Known limits
/// *Of what is bounded:*
/// - Of a decision's budget only the time is enforced, and memory for the result. Steps and depth
///   are not; memory that an evaluation takes on its way is not.
/// - The timer is looked at between the steps of an evaluation, not within a built-in. Bounded by
///   their arguments are `bits.lsh` (65,536 bits), `glob.match` (100 braces), `net.cidr_expand`,
///   `numbers.range` and `numbers.range_step` (a million items), `sprintf` (widths below 10,000) and
///   `units.*`; beyond that the decision is interrupted or the call has no value. All others run to
///   their end, notably `graph.reachable_paths` (exponential) and products of large integers.
/// - An evaluation that is cancelled while it runs ends when its time is over.
/// - Evaluations recurse on the machine's stack. Chains of rules and functions that could need more
///   than 56 MiB are refused at load (about 1,500 rules that each refer to the next); evaluations
///   must run on stacks of 64 MiB, as the pool's threads have. What is overlooked there, such as
///   rules reached through names that are also local variables, can overflow the stack and end the
///   process.
/// - Lines that `print` writes are kept in memory until the evaluation ends.
/// - The document of a package takes time in proportion to all rules of the policy, even of other
///   packages (0.3 ms for each 1,000), a rule does not.
/// - Compiled patterns of `regex.*` and `glob.*` are cached for all apps together.
/// - At load regorus writes warnings to the process' standard error: about `import input`, and in
///   Rego v0 about keywords without their import.
/// - Some built-ins panic on odd arguments (`strings.count(x, "")`, `regex.template_match`). The
///   panic is contained: the decision fails, the policy stays usable.
///
/// *Of memory:* regorus has values of its own, so data is there twice: as the [`Value`](crate::Value)
/// that bundles are read into, and as regorus holds it. Both are shared by all apps with equal data,
/// also under different policies; each policy has the top level of its own. Together they take
/// about two and a half times what the first alone takes, at the most while loading and afterwards.
/// An evaluation that sets
/// a rule beside data copies the objects on the way to it, not what is in them.
///
/// *Of what is refused:*
/// - Modules that call `http.send`, `net.lookup_ip_addr` or `opa.runtime`, also if `with` replaces
///   them, and modules that call a built-in which regorus lacks: `crypto.*`, `graphql.*`,
///   `io.jwt.*`, `providers.aws.*`, `rego.*`, `uri.*`, most of `net.*` and others.
/// - `walk` in another form than the statement `walk(x, [path, value])`.
/// - Modules that exceed [`Limits`](opa_rego::screen::Limits): brackets and braces nested more than
///   about 15 deep, chains of more than 250 operators.
/// - Input and data nested more than 100 levels deep, results more than 500, and numbers of more
///   than 1,000 digits.
///
/// *Of what is answered differently than by OPA:*
/// - Numbers that are no integers are binary64 (`0.1 + 0.2 != 0.3`) and lose their text: `1.0`
///   becomes `1`, `1e2` becomes `100`.
/// - Arrays sort before sets before objects.
/// - Less is checked at load: no types, no recursion of rules (an error when it is evaluated), no
///   variables that are unsafe below `not`. Check policies with `opa check`.
/// - `with` mocks, `rand.intn` and `uuid.rfc4122` are regorus' own; only `time.now_ns` is taken from
///   the decision.
/// - An error in one definition of a function is lost if another definition has a value.
/// - Many built-ins differ from Go's in details: `sprintf`, `regex.*` (Unicode classes), `glob.match`
///   (`**`), `json.*` and `yaml.*` texts, `semver.*`, `time.*`, `units.*`.
#[derive(Clone, Debug)]
pub struct Regorus {
    limits: Limits,
    conversions: Arc<Conversions>,
}

impl Regorus {
    /// An engine that refuses modules beyond `limits`.
    ///
    /// ```
    /// use opa_core::engine::{CompileOptions, Engine, Module, ModuleSet, Regorus};
    ///
    /// let mut limits = Regorus::default_limits();
    /// limits.source_bytes = 20;
    /// let modules = ModuleSet::new([Module::v1("a.rego", "package a\n\nallow := true")]);
    /// let refused = Regorus::new(limits).compile(&modules, &CompileOptions::default());
    /// assert!(refused.is_err());
    /// ```
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            conversions: Arc::default(),
        }
    }

    /// The limits of [`Regorus::default`]: those of [`Limits`] by default, but 16 MiB of source
    /// text, 2,000,000 tokens and 500,000 repetitions for each module, so that large generated
    /// modules are taken. Nested brackets then take a release build about a second to parse.
    #[must_use]
    pub fn default_limits() -> Limits {
        let mut limits = Limits::default();
        limits.source_bytes = 16 << 20;
        limits.tokens = 2_000_000;
        limits.repetitions = 500_000;
        limits
    }
}

impl Default for Regorus {
    fn default() -> Self {
        Self::new(Self::default_limits())
    }
}

impl Engine for Regorus {
    fn name(&self) -> &'static str {
        "regorus"
    }

    fn scheduling(&self) -> Scheduling {
        Scheduling::Pooled
    }

    fn compile(
        &self,
        modules: &ModuleSet,
        options: &CompileOptions,
    ) -> Result<Arc<dyn Policy>, CompileErrors> {
        Ok(Arc::new(RegorusPolicy::compile(
            modules,
            &self.limits,
            options,
            &self.conversions,
        )?))
    }
}

fn fail_if_any(errors: Vec<CompileError>) -> Result<(), CompileErrors> {
    let mut errors = errors.into_iter();
    match errors.next() {
        Some(first) => Err(CompileErrors::new(first, errors.collect())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod hazards;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
