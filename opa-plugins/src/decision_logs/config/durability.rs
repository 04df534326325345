//! What happens to decisions that can't be logged as they come: `when_full` and `audit`.

use std::time::Duration;

use opa_core::config::{ConfigError, Field, Reader};

/// What happens when the events of an app have no room: `when_full`. OPA has no such key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// `drop_oldest`, the default: the oldest events give way.
    #[default]
    DropOldest,
    /// `drop_newest`: what comes is dropped.
    DropNewest,
    /// `sample`: from half full on, one of ten events that come is kept; when that is too much, the
    /// oldest give way.
    Sample,
    /// `hold`: decisions wait for room, and are refused without.
    Hold {
        /// `hold_deadline_ms`: how long they wait; a second by default, at most 30 seconds.
        deadline: Duration,
    },
    /// `deny`: decisions are refused at once.
    Deny,
}

/// When a decision takes effect, with a spool: `durability`. OPA has no such key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// `async`, the default: at once. A crash loses what was not written yet.
    #[default]
    Async,
    /// `before_response`: when its event is on the disk, or, without a buffer
    /// ([`eopa_dl`](crate::decision_logs::outputs::eopa)), at its outputs. It needs one of both.
    BeforeResponse,
}

impl Durability {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let Some(field) = reader.field("durability") else {
            return Ok(Self::Async);
        };
        match field.as_str()? {
            "async" => Ok(Self::Async),
            "before_response" => Ok(Self::BeforeResponse),
            other => Err(field.error(format!(
                "expected `async` or `before_response`, found `{other}`"
            ))),
        }
    }
}

/// Whether events are numbered: `audit`. OPA has no such key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audit {
    /// `false`, the default.
    #[default]
    Off,
    /// `true`: each event has `custom.audit.sequence`.
    On,
    /// `required`: and no decisions are made when no more events can be taken.
    Required,
}

const DEADLINE_MS: i64 = 1_000;
/// Decisions wait no longer for their log.
const MAX_DEADLINE_MS: i64 = 30_000;

impl WhenFull {
    /// Who wants no response before the event is safe wants no event to be dropped, unless he says so.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        durability: Durability,
    ) -> Result<Self, ConfigError> {
        let deadline = reader.field("hold_deadline_ms");
        let field = reader.field("when_full");
        let read = match field {
            Some(field) => Self::named(&field, deadline.as_ref())?,
            None if durability == Durability::BeforeResponse => Self::Hold {
                deadline: read_deadline(deadline.as_ref())?,
            },
            None => Self::default(),
        };
        match deadline {
            Some(field) if !matches!(read, Self::Hold { .. }) => {
                Err(field.error("it is for `when_full: hold` only"))
            }
            _ => Ok(read),
        }
    }

    fn named(field: &Field<'_>, deadline: Option<&Field<'_>>) -> Result<Self, ConfigError> {
        match field.as_str()? {
            "drop_oldest" => Ok(Self::DropOldest),
            "drop_newest" => Ok(Self::DropNewest),
            "sample" => Ok(Self::Sample),
            "hold" => Ok(Self::Hold {
                deadline: read_deadline(deadline)?,
            }),
            "deny" => Ok(Self::Deny),
            other => Err(field.error(format!(
                "expected `drop_oldest`, `drop_newest`, `sample`, `hold` or `deny`, found `{other}`"
            ))),
        }
    }

    /// `hold`, with the deadline that is the default.
    pub(in super::super) fn held() -> Self {
        Self::Hold {
            deadline: Duration::from_millis(DEADLINE_MS.unsigned_abs()),
        }
    }

    /// Whether decisions wait or are refused, so that no event is dropped.
    pub(in super::super) fn holds(self) -> bool {
        matches!(self, Self::Hold { .. } | Self::Deny)
    }
}

fn read_deadline(field: Option<&Field<'_>>) -> Result<Duration, ConfigError> {
    let Some(field) = field else {
        return Ok(Duration::from_millis(DEADLINE_MS.unsigned_abs()));
    };
    match field.as_i64()? {
        millis @ 1..=MAX_DEADLINE_MS => Ok(Duration::from_millis(millis.unsigned_abs())),
        _ => Err(field.error(format!("must be between 1 and {MAX_DEADLINE_MS}"))),
    }
}

impl Audit {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let Some(field) = reader.field("audit") else {
            return Ok(Self::Off);
        };
        match (field.as_bool(), field.as_str()) {
            (Ok(false), _) => Ok(Self::Off),
            (Ok(true), _) => Ok(Self::On),
            (_, Ok("required")) => Ok(Self::Required),
            _ => Err(field.error("expected `true`, `false` or `required`")),
        }
    }
}
