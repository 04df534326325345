//! What several examples share: a server that ends gracefully.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use opa_tower::Manager;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

/// How long requests under way may take after the signal to end, then the last log entries, and
/// then the last traces.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Ends when the process is asked to end: Ctrl-C, or SIGTERM.
pub type Interrupt = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Listens for the request to end, from now on.
///
/// # Errors
/// When the operating system refuses it.
pub fn interrupt() -> io::Result<Interrupt> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut ctrl_c = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(Box::pin(async move {
            tokio::select! {
                _ = ctrl_c.recv() => {}
                _ = terminate.recv() => {}
            }
        }))
    }
    #[cfg(windows)]
    {
        let mut ctrl_c = tokio::signal::windows::ctrl_c()?;
        Ok(Box::pin(async move {
            ctrl_c.recv().await;
        }))
    }
}

/// Listens on `address`.
///
/// # Errors
/// With the address in the message, when it is in use or isn't ours.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Serves `router` until `interrupt`, then ends: requests under way first, the manager after them,
/// so that their decisions are logged.
///
/// # Errors
/// When the server fails, or is asked to end once more before all that is done.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    interrupt: impl Future<Output = ()>,
    manager: &Manager,
) -> io::Result<()> {
    let (end, ended) = oneshot::channel::<()>();
    // `ConnectInfo` is where the policy's source address comes from.
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = ended.await;
    });
    let mut server = pin!(server.into_future());
    tokio::select! {
        stopped = &mut server => return stopped,
        () = interrupt => drop(end),
    }
    let graceful = async {
        let served = timeout(DEADLINE, server).await.unwrap_or_else(|_| {
            tracing::error!("requests were still under way after {DEADLINE:?}");
            Ok(())
        });
        manager.shutdown(DEADLINE).await;
        served
    };
    let mut again = self::interrupt()?;
    tokio::select! {
        served = graceful => served,
        () = &mut again => Err(io::Error::other(
            "asked to end once more: requests under way were cut off",
        )),
    }
}

/// Says what went wrong, if something did, and answers the exit code: 1 then.
#[expect(clippy::print_stderr, reason = "the last words of a program")]
pub fn exit(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what happens inside to standard error, from `level` up.
pub fn log(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
