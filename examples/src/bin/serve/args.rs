use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{Error, ErrorKind};
use clap::{CommandFactory, Parser};
use opa_tower::AppId;

/// An echo service behind the policies of your own OPA configuration.
///
/// A request that the policy allows is answered with what reached the service, as JSON. Decisions
/// are logged to standard error if the configuration says `decision_logs: {console: true}`.
/// OpenTelemetry's variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and others) export traces.
#[derive(Debug, Parser)]
#[command(name = "serve")]
pub(crate) struct Args {
    /// A configuration file as for OPA, the template of every app.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config_file: PathBuf,

    /// Puts options over the configuration, as OPA's: `labels.region=eu`. Can be repeated.
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) set: Vec<String>,

    /// Puts the content of files over the configuration, as OPA's: `labels.region=/etc/region`.
    /// Can be repeated.
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) set_file: Vec<String>,

    /// Reloads the configuration when its content changes, as SIGHUP does at any time. What is
    /// wrong is logged, and the old configuration stays.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Where to listen, with HTTP/1.1 and HTTP/2 without TLS. Port 0 is a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// The app whose policy judges all requests.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        conflicts_with = "trust_app_header"
    )]
    pub(crate) app: AppId,

    /// Lets the request header `x-opa-app` name the app. Only on a loopback address: whoever can
    /// send the header chooses the policy. An app starts when it is named first, and is answered
    /// 503 until its bundles are active.
    #[arg(long)]
    pub(crate) trust_app_header: bool,

    /// How many apps there may be at a time.
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    pub(crate) max_apps: NonZeroUsize,

    /// How long an app that nobody uses stays warm, such as `30s` or `5m`.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) grace: Duration,

    /// Where to answer operators: `GET /-/apps` tells the state of each app, `GET /metrics`
    /// is for Prometheus.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<SocketAddr>,

    /// Keeps the events of the decision log in this directory until they are delivered, over restarts.
    /// Nobody else may use it. With it `decision_logs: {durability: before_response}` can be asked for.
    #[cfg(unix)]
    #[arg(long, value_name = "DIR")]
    pub(crate) spool: Option<PathBuf>,

    /// How many bytes of events the spool may have.
    #[cfg(unix)]
    #[arg(
        long,
        value_name = "N",
        default_value = "1073741824",
        value_parser = clap::value_parser!(u64).range(65_536..),
        requires = "spool"
    )]
    pub(crate) spool_bytes: u64,

    /// How long the spool keeps the events of apps that are not there, when it is full and others need
    /// the room. Default: for ever.
    #[cfg(unix)]
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration,
        requires = "spool"
    )]
    pub(crate) spool_max_absence: Option<Duration>,

    /// Permits the configuration to ask for `dry-run`, which lets denied requests pass.
    #[arg(long)]
    pub(crate) permit_dry_run: bool,

    /// Lets requests with a body be judged, though the policy isn't shown the body.
    #[arg(long)]
    pub(crate) body_unseen: bool,

    /// An environment variable that the configuration may read. Can be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_env: Vec<String>,
}

impl Args {
    /// # Errors
    /// What clap can't check by itself.
    pub(crate) fn check(self) -> Result<Self, Error> {
        if self.trust_app_header && !self.listen.ip().is_loopback() {
            let text = format!(
                "--trust-app-header needs a loopback address to listen on, which {} is not",
                self.listen.ip(),
            );
            return Err(Self::command().error(ErrorKind::ArgumentConflict, text));
        }
        Ok(self)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    signed.try_into().map_err(|_| "a negative time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Args, Error> {
        let args = ["serve", "--config-file", "opa.yaml"]
            .into_iter()
            .chain(args.split_whitespace());
        Args::try_parse_from(args)?.check()
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_as_documented() {
        let args = parse("").unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(args.app.as_str(), "default");
        assert_eq!(
            (args.max_apps.get(), args.grace),
            (1000, Duration::from_secs(30))
        );
        assert!(!args.trust_app_header && !args.permit_dry_run && !args.body_unseen);
        assert!(args.admin.is_none() && args.allow_env.is_empty());
        assert!(args.set.is_empty() && args.set_file.is_empty() && !args.watch);
    }

    #[test]
    fn overrides_are_taken_as_they_are() {
        let args = parse("--set a.b=1,c=2 --set d={e,f} --set-file g=h,i=j --watch").unwrap();
        assert_eq!(args.set, ["a.b=1,c=2", "d={e,f}"]);
        assert_eq!(args.set_file, ["g=h,i=j"]);
        assert!(args.watch);
    }

    #[cfg(unix)]
    #[test]
    fn a_spool_has_a_directory_and_a_size() {
        let args = parse("--spool /var/spool/opa").unwrap();
        assert_eq!(args.spool, Some(PathBuf::from("/var/spool/opa")));
        assert_eq!(args.spool_bytes, 1 << 30);
        let args = parse("--spool dir --spool-bytes 1000000").unwrap();
        assert_eq!(
            (args.spool_bytes, args.spool_max_absence),
            (1_000_000, None)
        );
        let args = parse("--spool dir --spool-max-absence 1h").unwrap();
        assert_eq!(args.spool_max_absence, Some(Duration::from_secs(3600)));
        assert!(parse("--spool-bytes 1000000").is_err());
        assert!(parse("--spool dir --spool-bytes 1").is_err());
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("0s", 0),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            let args = parse(&format!("--grace {text}")).unwrap();
            assert_eq!(args.grace, Duration::from_millis(millis), "{text}");
        }
        for text in ["30", "s", "-30s", "1y", "soon"] {
            assert!(parse(&format!("--grace={text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_is_trusted_on_loopback_only() {
        for address in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:8080"] {
            assert!(
                parse(&format!("--trust-app-header --listen {address}")).is_ok(),
                "{address}"
            );
        }
        for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"] {
            assert!(
                parse(&format!("--trust-app-header --listen {address}")).is_err(),
                "{address}"
            );
        }
    }

    #[test]
    fn an_app_is_fixed_or_named_by_the_header() {
        assert!(parse("--app orders --trust-app-header").is_err());
        assert!(parse("--app ../orders").is_err());
        assert_eq!(parse("--app orders").unwrap().app.as_str(), "orders");
    }
}
