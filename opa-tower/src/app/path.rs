use http::request::Parts;
use opa_core::AppId;
use percent_encoding::percent_decode_str;

use super::Rejection;

/// The app that the `n`th segment of the path names, from 0: `path_segment(parts, 1)` is `blue` in
/// `/t/blue/orders`.
///
/// The path is the one that the inner service sees. Empty segments count, and a segment is
/// percent-decoded once, as routers do.
///
/// # Errors
/// 404, when there is no such segment or it is no app id.
pub fn path_segment(parts: &Parts, n: usize) -> Result<AppId, Rejection> {
    let path = parts.uri.path();
    let segment = path.strip_prefix('/').unwrap_or(path).split('/').nth(n);
    let decoded = percent_decode_str(segment.ok_or_else(Rejection::not_found)?).decode_utf8();
    Ok(AppId::new(&decoded.map_err(|_| Rejection::not_found())?)?)
}

/// The app that a path parameter of axum's router names: `path_param(parts, "tenant")` is `blue`
/// on the route `/t/{tenant}`.
///
/// For layers on a router or its routes, where the route is known.
///
/// # Errors
/// 404, when the route has no such parameter or its value is no app id.
#[cfg(feature = "axum")]
pub fn path_param(parts: &mut Parts, name: &str) -> Result<AppId, Rejection> {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use axum::extract::{FromRequestParts, RawPathParams};

    // The parameters lie in the request's extensions, under a type that only axum can name. Its
    // extractor is asynchronous by its trait only: it never waits.
    let params = pin!(RawPathParams::from_request_parts(parts, &()));
    let Poll::Ready(Ok(params)) = params.poll(&mut Context::from_waker(Waker::noop())) else {
        return Err(Rejection::not_found());
    };
    let value = params
        .iter()
        .find_map(|(param, value)| (param == name).then_some(value));
    Ok(AppId::new(value.ok_or_else(Rejection::not_found)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn segment(path: &str, n: usize) -> Option<String> {
        let parts = Request::get(path).body(()).unwrap().into_parts().0;
        path_segment(&parts, n)
            .ok()
            .map(|app| app.as_str().to_owned())
    }

    #[test]
    fn segments_are_counted_from_zero_and_decoded_once() {
        assert_eq!(segment("/t/blue/x?y", 1).as_deref(), Some("blue"));
        assert_eq!(segment("/t/%62lue", 1).as_deref(), Some("blue"));
        assert_eq!(segment("/blue", 0).as_deref(), Some("blue"));
    }

    #[test]
    fn what_is_no_app_id_names_none() {
        for path in [
            "/t",
            "/t/",
            "/t//blue",
            "/t/%2562lue",
            "/t/a%2Fb",
            "/t/%ff",
            "/t/%zz",
            "/t/..",
        ] {
            assert_eq!(segment(path, 1), None, "{path}");
        }
    }
}
