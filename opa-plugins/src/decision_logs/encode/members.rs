//! The members of an event, one by one.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opa_core::plugin::{Event, EventError, EventInput, Metrics};
use opa_core::{Reason, Value};

use super::{MAX_EVENT_BYTES, redact};
use crate::json;

/// Writes an event's members one by one, absent ones not at all.
pub(super) struct Members<'a> {
    event: &'a Event,
    pub(super) out: &'a mut Vec<u8>,
    first: bool,
    /// How many bytes `out` may have.
    limit: usize,
    /// Headers that are secret are not told.
    redacted: bool,
}

impl<'a> Members<'a> {
    pub(super) fn new(event: &'a Event, out: &'a mut Vec<u8>) -> Self {
        Self {
            event,
            limit: out.len().saturating_add(MAX_EVENT_BYTES),
            out,
            first: true,
            redacted: false,
        }
    }

    /// Whether headers that are secret are left out, wherever they stand.
    pub(super) fn redacted(self, redacted: bool) -> Self {
        Self { redacted, ..self }
    }

    /// Whether the event is larger than it may be, and isn't whole.
    pub(super) fn is_too_large(&self) -> bool {
        self.out.len() > self.limit
    }

    /// All that is small and that no other member of [`to_value`] is.
    pub(super) fn small(&mut self) {
        self.trace();
        self.bundles();
        self.path();
        self.erased();
        self.masked();
        self.error();
        self.requested_by();
        self.timestamp();
        self.metrics();
        self.req_id();
        self.rule_labels();
        self.request_context();
        self.custom();
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        json::string(name, self.out);
        self.out.push(b':');
        self.out
    }

    /// A text, unless it is empty: Go leaves those out.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            json::string(text, self.name(name));
        }
    }

    fn value(&mut self, name: &str, value: Option<&Value>) {
        let limit = self.limit;
        if let Some(value) = value.filter(|_| !self.is_too_large()) {
            let redacted = self.redacted;
            let out = self.name(name);
            match redacted {
                true => json::value_by(value, limit, out, redact::member),
                false => json::value_within(value, limit, out),
            };
        }
    }

    fn texts(&mut self, name: &str, texts: &[impl AsRef<str>]) {
        if !texts.is_empty() {
            json::array(texts, self.name(name), |text, out| {
                json::string(text.as_ref(), out);
            });
        }
    }

    pub(super) fn time(&mut self, name: &str, time: SystemTime) {
        json::time(time, self.name(name));
    }

    pub(super) fn labels(&mut self) {
        let labels = self.event.labels.iter();
        json::object(labels, self.name("labels"), json::string);
    }

    pub(super) fn decision_id(&mut self) {
        json::string(&self.event.decision_id, self.name("decision_id"));
    }

    pub(super) fn trace(&mut self) {
        self.trace_id();
        self.span_id();
    }

    pub(super) fn trace_id(&mut self) {
        self.text(
            "trace_id",
            self.event.trace_id.as_deref().unwrap_or_default(),
        );
    }

    pub(super) fn span_id(&mut self) {
        self.text("span_id", self.event.span_id.as_deref().unwrap_or_default());
    }

    pub(super) fn bundles(&mut self) {
        let mut bundles: Vec<_> = self.event.bundles.iter().collect();
        if bundles.is_empty() {
            return;
        }
        bundles.sort_by(|left, right| left.name.cmp(&right.name));
        let bundles = bundles.iter().map(|it| (&it.name, it.revision.as_deref()));
        json::object(bundles, self.name("bundles"), |revision, out| {
            let revision = revision.filter(|it| !it.is_empty());
            json::object(revision.map(|it| ("revision", it)), out, json::string);
        });
    }

    pub(super) fn path(&mut self) {
        self.text("path", self.event.path.as_deref().unwrap_or_default());
    }

    pub(super) fn input(&mut self) {
        self.value("input", input(self.event).as_deref());
    }

    pub(super) fn result(&mut self) {
        self.value("result", self.event.result.as_ref());
    }

    pub(super) fn nd_builtin_cache(&mut self) {
        self.value("nd_builtin_cache", self.event.nd_builtin_cache.as_ref());
    }

    pub(super) fn erased(&mut self) {
        self.texts("erased", &self.event.erased);
    }

    pub(super) fn masked(&mut self) {
        self.texts("masked", &self.event.masked);
    }

    pub(super) fn error(&mut self) {
        if let Some(EventError { code, message }) = &self.event.error {
            let members = [("code", code), ("message", message)];
            json::object(members, self.name("error"), |text, out| {
                json::string(text, out);
            });
        }
    }

    pub(super) fn error_text(&mut self) {
        if let Some(EventError { code, message }) = &self.event.error {
            self.text("error", &format!("{code}: {message}"));
        }
    }

    pub(super) fn requested_by(&mut self) {
        self.text(
            "requested_by",
            self.event.requested_by.as_deref().unwrap_or_default(),
        );
    }

    pub(super) fn timestamp(&mut self) {
        self.time("timestamp", self.event.timestamp);
    }

    pub(super) fn metrics(&mut self) {
        let Metrics { eval, handler, .. } = self.event.metrics;
        let timers = [
            ("timer_rego_query_eval_ns", eval),
            ("timer_server_handler_ns", handler),
        ];
        json::object(timers, self.name("metrics"), nanos);
    }

    pub(super) fn req_id(&mut self) {
        if let Some(id) = self.event.req_id.filter(|id| *id > 0) {
            json::integer(id, self.name("req_id"));
        }
    }

    pub(super) fn rule_labels(&mut self) {
        if !self.event.rule_labels.is_empty() {
            let labels = &self.event.rule_labels;
            json::array(labels, self.name("rule_labels"), json::value);
        }
    }

    pub(super) fn request_context(&mut self) {
        let headers = &self.event.request_headers;
        let mut headers: Vec<_> = headers.iter().filter(|it| !it.values.is_empty()).collect();
        if headers.is_empty() {
            return;
        }
        headers.sort_by(|left, right| left.name.cmp(&right.name));
        headers.dedup_by(|left, right| left.name == right.name);
        let redacted = self.redacted;
        let out = self.name("request_context");
        out.extend_from_slice(br#"{"http":{"headers":"#);
        let headers = headers.iter().map(|it| (&it.name, *it));
        json::object(headers, out, |it, out| {
            let hidden = redacted && redact::is_secret(&it.name);
            redact::values(hidden, &it.values, out);
        });
        out.extend_from_slice(b"}}");
    }

    pub(super) fn custom(&mut self) {
        let reason = match self.event.reason {
            Reason::Allowed | Reason::Denied | Reason::Decided => None,
            reason => Some(Value::from(reason.as_str())),
        };
        let reason = reason.iter().map(|reason| ("reason", reason));
        let custom = self.event.custom.iter().map(|(name, value)| (*name, value));
        let mut custom: Vec<_> = custom.chain(reason).collect();
        if custom.is_empty() {
            return;
        }
        // Of members with one name the last stays.
        custom.reverse();
        custom.sort_by_key(|(name, _)| *name);
        custom.dedup_by_key(|(name, _)| *name);
        json::object(custom, self.name("custom"), json::value);
    }
}

/// The input document, built if it is deferred.
pub(super) fn input(event: &Event) -> Option<Cow<'_, Value>> {
    match &event.input {
        EventInput::None | EventInput::Withheld => None,
        EventInput::Built(input) => Some(Cow::Borrowed(input)),
        EventInput::Deferred(input) => Some(Cow::Owned(input.build())),
    }
}

fn nanos(duration: Duration, out: &mut Vec<u8>) {
    json::integer(duration.as_nanos(), out);
}
