use std::error::Error;
use std::io::{self, ErrorKind};

use super::CredentialsError;
use crate::FailureClass;

/// What sort of failure an error of a request is, told by its causes.
pub(crate) fn of(error: &(dyn Error + 'static)) -> FailureClass {
    let causes = || {
        let mut next = Some(error);
        std::iter::from_fn(move || {
            let cause = next?;
            next = cause.source();
            Some(cause)
        })
    };
    let is_sent = causes().any(|cause| cause.is::<reqwest::Error>());
    let told = causes().find_map(|cause| {
        if cause.is::<CredentialsError>() {
            return Some(FailureClass::Credentials);
        }
        if let Some(error) = cause.downcast_ref::<tokio::task::JoinError>() {
            return error.is_panic().then_some(FailureClass::Panic);
        }
        if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
            return error.is_timeout().then_some(FailureClass::Timeout);
        }
        of_io(cause.downcast_ref()?)
    });
    told.unwrap_or(match is_sent {
        true => FailureClass::Network,
        // It could not even be written.
        false => FailureClass::Config,
    })
}

fn of_io(mut error: &io::Error) -> Option<FailureClass> {
    loop {
        match error.kind() {
            ErrorKind::TimedOut => return Some(FailureClass::Timeout),
            // How the TLS of a connection reports whatever is wrong with the other side.
            ErrorKind::InvalidData => return Some(FailureClass::Tls),
            // One that wraps another does not call it its source.
            _ => error = error.get_ref()?.downcast_ref()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_causes_tell_the_class() {
        assert_eq!(of(&CredentialsError::new("x")), FailureClass::Credentials);
        let io = |kind| of(&io::Error::new(kind, "x"));
        assert_eq!(io(ErrorKind::InvalidData), FailureClass::Tls);
        assert_eq!(io(ErrorKind::TimedOut), FailureClass::Timeout);
        let wrapped = io::Error::other(io::Error::new(ErrorKind::InvalidData, "x"));
        assert_eq!(of(&io::Error::other(wrapped)), FailureClass::Tls);
        let unsent = http::HeaderValue::try_from("\n").unwrap_err();
        assert_eq!(of(&unsent), FailureClass::Config);
    }

    #[tokio::test]
    async fn a_refused_connection_is_the_networks() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(of(&error), FailureClass::Network);
    }
}
