use std::collections::BTreeMap;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// The largest body that is echoed.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Answers what reached the service: `method`, `path` with the query, `headers` as lists, and
/// `body`, or `body_base64` when it isn't UTF-8.
pub(crate) async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    // The authority form of `CONNECT` has no path.
    let path = head
        .uri
        .path_and_query()
        .map_or_else(|| head.uri.to_string(), ToString::to_string);
    let (name, body) = match String::from_utf8(body) {
        Ok(text) => ("body", text),
        Err(error) => ("body_base64", STANDARD.encode(error.as_bytes())),
    };
    let echo = json!({
        "method": head.method.as_str(),
        "path": path,
        "headers": lists(&head.headers),
        name: body,
    });
    Json(echo).into_response()
}

async fn read(body: Body) -> Result<Vec<u8>, Response> {
    match to_bytes(body, MAX_BODY).await {
        Ok(body) => Ok(body.into()),
        Err(error) => {
            let text = format!("the body can't be read to its end: {error}\n");
            Err((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
    }
}

/// All values of each header, by name.
fn lists(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut lists = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        lists.entry(name.as_str()).or_default().push(value);
    }
    lists
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    async fn echoed(request: axum::http::request::Builder, body: impl Into<Body>) -> Value {
        let response = echo(request.body(body.into()).unwrap()).await;
        assert_eq!(response.status(), 200);
        serde_json::from_slice(&to_bytes(response.into_body(), MAX_BODY).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn all_of_a_request_is_told() {
        let request = Request::put("http://example.org/a%20b?c=d")
            .header("x-a", "1")
            .header("x-a", "2");
        let expected = json!({
            "method": "PUT",
            "path": "/a%20b?c=d",
            "headers": {"x-a": ["1", "2"]},
            "body": "ü",
        });
        assert_eq!(echoed(request, "ü").await, expected);
    }

    #[tokio::test]
    async fn a_body_that_is_no_text_is_told_in_base64() {
        let echo = echoed(Request::post("/"), vec![0xff, 0, 1]).await;
        assert_eq!(echo["body_base64"], "/wAB");
        assert_eq!(echo.get("body"), None);
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        let request = Request::post("/")
            .body(vec![0; MAX_BODY + 1].into())
            .unwrap();
        assert_eq!(echo(request).await.status(), 413);
    }
}
