use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use opa_core::AppId;
use pin_project_lite::pin_project;

use super::Rejection;

/// Tells which app of a layer's closed set judges a request.
///
/// Closures that answer at once are extractors; see the [module docs](super).
pub trait AppExtractor {
    /// The future of the app's id.
    type Future: Future<Output = Result<AppId, Rejection>> + 'static;

    /// Reads the app's id from the request. What it changes in the request is seen by the policy
    /// and the inner service.
    fn extract(&self, parts: &mut Parts) -> Self::Future;

    /// The answer, if it is known without waiting: then the request may go its way without a clone
    /// of the inner service.
    ///
    /// Default: `None`, and [`extract`](Self::extract) is called next. Who answers `None` must
    /// leave the request as it was.
    fn extract_now(&self, parts: &mut Parts) -> Option<Result<AppId, Rejection>> {
        let _ = parts;
        None
    }
}

impl<F, R> AppExtractor for F
where
    F: Fn(&mut Parts) -> R,
    R: IntoExtraction,
{
    type Future = Ready<Result<AppId, Rejection>>;

    fn extract(&self, parts: &mut Parts) -> Self::Future {
        ready(self(parts).into_extraction())
    }

    fn extract_now(&self, parts: &mut Parts) -> Option<Result<AppId, Rejection>> {
        Some(self(parts).into_extraction())
    }
}

/// The extractor of a layer with a fixed app: there is none.
#[derive(Clone, Copy, Debug)]
pub enum NoExtractor {}

impl AppExtractor for NoExtractor {
    type Future = Ready<Result<AppId, Rejection>>;

    fn extract(&self, _: &mut Parts) -> Self::Future {
        match *self {}
    }
}

/// An extractor of a closure that answers a future. See [`extract_async`].
#[derive(Clone, Copy)]
pub struct ExtractAsync<F>(F);

/// Makes an extractor of a closure that answers a future.
///
/// The future must own what it needs of the request. Until it is ready the request waits, and with
/// it a clone of the inner service; bound the wait inside of it.
pub fn extract_async<F>(extract: F) -> ExtractAsync<F> {
    ExtractAsync(extract)
}

impl<F, Fut> AppExtractor for ExtractAsync<F>
where
    F: Fn(&mut Parts) -> Fut,
    Fut: Future + 'static,
    Fut::Output: IntoExtraction,
{
    type Future = ExtractFuture<Fut>;

    fn extract(&self, parts: &mut Parts) -> Self::Future {
        ExtractFuture {
            future: (self.0)(parts),
        }
    }
}

impl<F> fmt::Debug for ExtractAsync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExtractAsync(<fn>)")
    }
}

pin_project! {
    /// The future of an [`extract_async`] closure.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ExtractFuture<Fut> {
        #[pin]
        future: Fut,
    }
}

impl<Fut> Future for ExtractFuture<Fut>
where
    Fut: Future,
    Fut::Output: IntoExtraction,
{
    type Output = Result<AppId, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().future.poll(cx)).into_extraction())
    }
}

/// What a closure may answer that is an [`AppExtractor`].
pub trait IntoExtraction {
    /// The app's id, or what the request is answered.
    ///
    /// # Errors
    /// When there is no id.
    fn into_extraction(self) -> Result<AppId, Rejection>;
}

impl IntoExtraction for AppId {
    fn into_extraction(self) -> Result<AppId, Rejection> {
        Ok(self)
    }
}

impl IntoExtraction for &str {
    fn into_extraction(self) -> Result<AppId, Rejection> {
        Ok(AppId::new(self)?)
    }
}

impl IntoExtraction for String {
    fn into_extraction(self) -> Result<AppId, Rejection> {
        self.as_str().into_extraction()
    }
}

/// `None` is answered 404.
impl<T: IntoExtraction> IntoExtraction for Option<T> {
    fn into_extraction(self) -> Result<AppId, Rejection> {
        self.ok_or_else(Rejection::not_found)?.into_extraction()
    }
}

impl<T: IntoExtraction, E: Into<Rejection>> IntoExtraction for Result<T, E> {
    fn into_extraction(self) -> Result<AppId, Rejection> {
        self.map_err(Into::into)?.into_extraction()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, StatusCode};

    fn now<E: AppExtractor>(extractor: E) -> Result<AppId, Rejection> {
        let mut parts = Request::new(()).into_parts().0;
        extractor.extract_now(&mut parts).expect("known at once")
    }

    #[test]
    fn closures_may_answer_ids_texts_options_and_results() {
        let blue = AppId::new("blue").unwrap();
        let id = blue.clone();
        assert_eq!(now(move |_: &mut Parts| id.clone()), Ok(blue.clone()));
        assert_eq!(now(|_: &mut Parts| "blue"), Ok(blue.clone()));
        assert_eq!(
            now(|_: &mut Parts| Some("blue".to_owned())),
            Ok(blue.clone())
        );
        assert_eq!(now(|_: &mut Parts| Ok::<_, Rejection>("blue")), Ok(blue));
    }

    #[test]
    fn what_is_no_app_id_is_not_found() {
        assert_eq!(now(|_: &mut Parts| "../blue"), Err(Rejection::not_found()));
        assert_eq!(
            now(|_: &mut Parts| None::<AppId>),
            Err(Rejection::not_found())
        );
    }

    #[test]
    fn the_error_of_a_closure_is_the_answer() {
        let gone = || Rejection::new(StatusCode::GONE).body("moved");
        let rejected = now(|_: &mut Parts| Err::<AppId, _>(gone()));
        assert_eq!(rejected, Err(gone()));
    }

    #[tokio::test]
    async fn asynchronous_closures_see_and_change_the_request() {
        let extractor = extract_async(|parts: &mut Parts| {
            let name = parts.headers.remove("x-app");
            async move {
                tokio::task::yield_now().await;
                name.and_then(|name| name.to_str().map(str::to_owned).ok())
            }
        });
        let mut parts = Request::builder()
            .header("x-app", "blue")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        assert!(extractor.extract_now(&mut parts).is_none());
        assert_eq!(
            extractor.extract(&mut parts).await.unwrap().as_str(),
            "blue"
        );
        assert!(parts.headers.is_empty());
    }
}
