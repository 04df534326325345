//! What of a bundle's poll stays when the configuration changes.

use super::CODE_DELAY;
use crate::config::{BundleConfig, BundleSource, Config, PollingConfig, ServiceConfig};
use crate::instance::{Configured, Ticket};

/// How a bundle is asked for. What is local is watched, and looked at without a sign of a change
/// as often as it would be polled otherwise; what failed is tried again soon.
pub(super) fn polling_of(bundle: &BundleConfig) -> PollingConfig {
    let polling = bundle.polling.clone();
    match &bundle.source {
        BundleSource::Service { .. } => polling,
        BundleSource::File(_) => PollingConfig {
            long_polling_timeout: polling.long_polling_timeout.or(Some(polling.max_delay)),
            min_delay: CODE_DELAY,
            max_delay: CODE_DELAY,
        },
    }
}

/// The ticket of a bundle's poll, and whether the poll is a new one.
pub(super) fn ticket_of(
    config: &Config,
    bundle: &BundleConfig,
    previous: Option<&Configured>,
) -> (Ticket, bool) {
    let known = previous.and_then(|previous| {
        let mut bundles = previous.config.bundles.iter();
        let before = bundles.find(|before| before.name == bundle.name)?;
        Some((&previous.config, before, previous.polls.get(&*bundle.name)?))
    });
    let Some((old, before, ticket)) = known else {
        return (Ticket::default(), true);
    };
    let place = |service: &'_ ServiceConfig| (service.kind, service.url.clone());
    let (service, service_before) = (service_of(config, bundle), service_of(old, before));
    let same_content = before.source == bundle.source
        && service.map(place) == service_before.map(place)
        && before.size_limit_bytes == bundle.size_limit_bytes
        && before.signing == bundle.signing
        && old.keys == config.keys;
    let same_poll = before == bundle
        && service == service_before
        && (!bundle.persist || old.persistence_directory == config.persistence_directory);
    match (same_content, same_poll) {
        (true, true) => (ticket.clone(), false),
        (true, false) => (ticket.successor(), true),
        (false, _) => (Ticket::default(), true),
    }
}

fn service_of<'c>(config: &'c Config, bundle: &BundleConfig) -> Option<&'c ServiceConfig> {
    let BundleSource::Service { service, .. } = &bundle.source else {
        return None;
    };
    config.services.iter().find(|one| one.name == *service)
}
