use prometheus::proto::MetricType;

/// A metric that apps have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    State,
    ConfigurationProblem,
    Stale,
    FailedLoad,
    Decisions,
    EventsDropped,
    Activation,
    SuccessRequest,
    Loaded,
    EventsDelivered,
    EventsBuffered,
    EventsSpooled,
    PluginStatus,
    StartTime,
    Reuses,
    DataBytes,
    PolicyBytes,
    Download,
    Request,
    LogRateLimit,
    LogBufferLimit,
    LogEncoding,
    LogNoRoom,
    LogCacheDropped,
    LogTooLarge,
    LogStatus,
}

/// All of them, in the order in which they are written.
pub(super) const ALL: [Family; 26] = [
    Family::State,
    Family::ConfigurationProblem,
    Family::Stale,
    Family::FailedLoad,
    Family::Decisions,
    Family::EventsDropped,
    Family::Activation,
    Family::SuccessRequest,
    Family::Loaded,
    Family::EventsDelivered,
    Family::EventsBuffered,
    Family::EventsSpooled,
    Family::PluginStatus,
    Family::StartTime,
    Family::Reuses,
    Family::DataBytes,
    Family::PolicyBytes,
    Family::Download,
    Family::Request,
    Family::LogRateLimit,
    Family::LogBufferLimit,
    Family::LogEncoding,
    Family::LogNoRoom,
    Family::LogCacheDropped,
    Family::LogTooLarge,
    Family::LogStatus,
];

impl Family {
    /// Name, type and help; where OPA has the metric, OPA's.
    #[rustfmt::skip]
    pub(super) fn described(self) -> (&'static str, MetricType, &'static str) {
        use MetricType::{COUNTER, GAUGE};
        match self {
            Self::State => ("opa_instance_state", GAUGE, "The state of the app's instance."),
            Self::ConfigurationProblem => ("opa_instance_configuration_problem", GAUGE, "Whether the app's instance isn't what the configuration says now."),
            Self::Stale => ("opa_bundle_stale", GAUGE, "Whether decisions are refused because the bundle's source has been silent for too long."),
            Self::FailedLoad => ("bundle_failed_load_counter", COUNTER, "Counter for the failed bundle load."),
            Self::Decisions => ("opa_decisions_total", COUNTER, "Decisions that have ended."),
            Self::EventsDropped => ("opa_decision_log_events_dropped_total", COUNTER, "Events of the decision log that were dropped."),
            Self::Activation => ("last_success_bundle_activation", GAUGE, "Gauge for the last success bundle activation."),
            Self::SuccessRequest => ("last_success_bundle_request", GAUGE, "Gauge for the last success bundle request."),
            Self::Loaded => ("bundle_loaded_counter", COUNTER, "Counter for the bundle loaded."),
            Self::EventsDelivered => ("opa_decision_log_events_delivered_total", COUNTER, "Events of the decision log that were delivered."),
            Self::EventsBuffered => ("opa_decision_log_events_buffered", GAUGE, "Events of the decision log that wait in memory alone."),
            Self::EventsSpooled => ("opa_decision_log_events_spooled", GAUGE, "Events of the decision log that wait in the spool."),
            Self::PluginStatus => ("plugin_status_gauge", GAUGE, "Gauge for the plugin by status."),
            Self::StartTime => ("opa_instance_start_time_seconds", GAUGE, "When the app's instance was started, in seconds since 1970."),
            Self::Reuses => ("opa_instance_reuses_total", COUNTER, "How often the instance was used again within its grace period."),
            Self::DataBytes => ("opa_instance_data_bytes", GAUGE, "The data files that are served, uncompressed."),
            Self::PolicyBytes => ("opa_instance_policy_bytes", GAUGE, "The policy files that are served, uncompressed."),
            Self::Download => ("last_success_bundle_download", GAUGE, "Gauge for the last success bundle download."),
            Self::Request => ("last_bundle_request", GAUGE, "Gauge for the last bundle request."),
            Self::LogRateLimit => ("decision_logs_dropped_rate_limit_exceeded_total", COUNTER, "Counter for the decision logs metric decision_logs_dropped_rate_limit_exceeded."),
            Self::LogBufferLimit => ("decision_logs_dropped_buffer_size_limit_bytes_exceeded_total", COUNTER, "Counter for the decision logs metric decision_logs_dropped_buffer_size_limit_bytes_exceeded."),
            Self::LogEncoding => ("decision_logs_encoding_failure_total", COUNTER, "Counter for the decision logs metric decision_logs_encoding_failure."),
            Self::LogNoRoom => ("decision_logs_dropped_buffer_size_limit_exceeded_total", COUNTER, "Counter for the decision logs metric decision_logs_dropped_buffer_size_limit_exceeded."),
            Self::LogCacheDropped => ("decision_logs_nd_builtin_cache_dropped_total", COUNTER, "Counter for the decision logs metric decision_logs_nd_builtin_cache_dropped."),
            Self::LogTooLarge => ("enc_log_exceeded_upload_size_limit_bytes_total", COUNTER, "Counter for the decision logs metric enc_log_exceeded_upload_size_limit_bytes."),
            Self::LogStatus => ("decision_logs_status_gauge", GAUGE, "Gauge for the last decision log upload by status."),
        }
    }
}
