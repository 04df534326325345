//! How long the sink does what.

use std::str::FromStr;

/// Long enough for percentiles, short enough for several in a phase.
const SLICE: u32 = 3;

/// The lengths of the phases, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    steady: u32,
    dead: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            steady: 9,
            dead: 60,
        }
    }
}

/// What the sink does for how many seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    /// As it is told to the sink.
    pub(super) answers: &'static str,
    seconds: u32,
}

impl Plan {
    /// Takes the options out of the arguments.
    pub(crate) fn read<'a>(arguments: &[&'a str]) -> Result<(Self, Vec<&'a str>), String> {
        let mut plan = Self::default();
        let mut others = Vec::new();
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            match argument {
                "--steady" => plan.steady = seconds(argument, arguments.next())?,
                "--dead" => plan.dead = seconds(argument, arguments.next())?,
                other => others.push(other),
            }
        }
        Ok((plan, others))
    }

    pub(super) fn phases(self) -> [Phase; 4] {
        let phase = |name, answers, seconds| Phase {
            name,
            answers,
            seconds,
        };
        [
            phase("healthy", "ok", self.steady),
            phase("slow", "slow 300", self.steady),
            phase("dead", "dead", self.dead),
            phase("recovered", "ok", self.steady),
        ]
    }
}

impl Phase {
    /// The seconds of each of its slices.
    pub(super) fn slices(self) -> impl Iterator<Item = u32> {
        let slices = (self.seconds / SLICE).max(1);
        let longer = self.seconds % slices;
        (0..slices).map(move |at| self.seconds / slices + u32::from(at < longer))
    }
}

fn seconds(option: &str, value: Option<&str>) -> Result<u32, String> {
    let seconds = value.map(u32::from_str).and_then(Result::ok);
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("`{option}` needs a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_and_names_are_left() {
        let (plan, parts) = Plan::read(&["cost", "--dead", "5", "outage"]).unwrap();
        assert_eq!((plan.steady, plan.dead), (9, 5));
        assert_eq!(parts, ["cost", "outage"]);
        for wrong in [&["--dead"][..], &["--dead", "0"], &["--steady", "x"]] {
            assert!(Plan::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn slices_are_as_long_as_the_phase_together() {
        let slices = |seconds| {
            let phase = Phase {
                name: "",
                answers: "",
                seconds,
            };
            phase.slices().collect::<Vec<_>>()
        };
        assert_eq!(slices(9), [3, 3, 3]);
        assert_eq!(slices(8), [4, 4]);
        assert_eq!(slices(5), [5]);
        assert_eq!(slices(1), [1]);
    }
}
