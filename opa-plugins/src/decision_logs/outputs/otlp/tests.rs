use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::SystemTime;

use opa_core::AppId;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::super::output::LoggedEvent;
use super::super::options::testing::open;
use super::*;

fn batch(ids: &[&str]) -> Batch {
    let event = |id: &&str| {
        let json = format!("{{\"decision_id\":\"{id}\"}}").into();
        LoggedEvent::new((*id).into(), SystemTime::UNIX_EPOCH, json)
    };
    let events = ids.iter().map(event).collect();
    Batch::new(AppId::new("shop").unwrap(), None, events)
}

/// Answers requests in turn, and tells what came: how many records were in each.
async fn server(
    answers: Vec<(u16, ExportLogsServiceResponse)>,
) -> (SocketAddr, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = VecDeque::from(answers);
        while let Some((status, answer)) = answers.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = ExportLogsServiceRequest::decode(&*body(&mut stream).await).unwrap();
            let scopes = request.resource_logs.iter().flat_map(|one| &one.scope_logs);
            let records = scopes.map(|scope| scope.log_records.len()).sum();
            sender.send(records).unwrap();
            let answer = answer.encode_to_vec();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n",
                answer.len(),
            );
            let answer = [head.into_bytes(), answer].concat();
            stream.write_all(&answer).await.unwrap();
        }
    });
    (address, received)
}

async fn body(stream: &mut tokio::net::TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    body
}

fn output(address: SocketAddr, more: &str) -> Arc<dyn Output> {
    let section = format!("{{\"endpoint\": \"http://{address}\"{more}}}");
    open(Otlp::default(), &section).unwrap()
}

fn rejecting(records: i64) -> ExportLogsServiceResponse {
    ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: records,
            error_message: "too old".to_owned(),
        }),
    }
}

fn received(mut counts: mpsc::UnboundedReceiver<usize>) -> Vec<usize> {
    std::iter::from_fn(|| counts.try_recv().ok()).collect()
}

#[tokio::test]
async fn records_that_the_collector_rejects_are_lost_and_no_others() {
    let (address, counts) = server(vec![(200, rejecting(2))]).await;
    let delivered = output(address, "").deliver(&batch(&["1", "2", "3"])).await;
    let error = delivered.unwrap_err();
    assert_eq!((error.is_permanent, error.lost), (true, Some(2)));
    let text = "the collector rejected 2 log records: too old";
    assert_eq!(error.message, text);
    assert_eq!(received(counts), [3]);
}

#[tokio::test]
async fn a_warning_of_the_collector_is_no_loss() {
    let (address, _counts) = server(vec![(200, rejecting(0))]).await;
    output(address, "").deliver(&batch(&["1"])).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_too_large_is_sent_in_parts_and_what_still_is_is_lost() {
    let ok = ExportLogsServiceResponse::default;
    // All four, the first two, the others, the third, the fourth.
    let answers = vec![
        (413, ok()),
        (200, ok()),
        (413, ok()),
        (413, ok()),
        (200, ok()),
    ];
    let (address, counts) = server(answers).await;
    let delivered = output(address, "")
        .deliver(&batch(&["1", "2", "3", "4"]))
        .await;
    let error = delivered.unwrap_err();
    assert_eq!((error.is_permanent, error.lost), (true, Some(1)));
    assert_eq!(received(counts), [4, 2, 2, 1, 1]);
}

#[tokio::test]
async fn a_batch_that_is_larger_than_a_request_is_sent_in_parts() {
    let ok = ExportLogsServiceResponse::default;
    let (address, counts) = server(vec![(200, ok()), (200, ok()), (200, ok())]).await;
    let output = output(address, ", \"max_request_bytes\": 1");
    output.deliver(&batch(&["1", "2", "3"])).await.unwrap();
    assert_eq!(received(counts), [1, 1, 1]);
}

#[tokio::test]
async fn other_answers_are_errors_that_may_go_away() {
    let ok = ExportLogsServiceResponse::default;
    for status in [301, 401, 404, 500, 503] {
        let (address, _counts) = server(vec![(status, ok())]).await;
        let error = output(address, "")
            .deliver(&batch(&["1"]))
            .await
            .unwrap_err();
        assert_eq!((error.is_permanent, error.http_code), (false, Some(status)));
    }
}

#[tokio::test]
async fn a_collector_that_says_nothing_or_is_not_there_is_an_error_that_may_go_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    for protocol in ["http/protobuf", "grpc"] {
        let more = format!(", \"protocol\": \"{protocol}\", \"timeout_seconds\": 0.05");
        let error = output(silent, &more)
            .deliver(&batch(&["1"]))
            .await
            .unwrap_err();
        assert_eq!(error.message, "no answer within 50ms");
        assert!(!error.is_permanent);
    }
    drop(listener);
    for protocol in ["http/protobuf", "grpc"] {
        let more = format!(", \"protocol\": \"{protocol}\"");
        let error = output(silent, &more)
            .deliver(&batch(&["1"]))
            .await
            .unwrap_err();
        assert!(!error.is_permanent, "{error}");
        assert!(error.message.contains("refused"), "{error}");
    }
}

#[test]
fn apps_with_the_same_collector_share_its_connections() {
    let output_type = Otlp::default();
    let target = |endpoint: &str| {
        let section = serde_json::json!({"endpoint": endpoint});
        let section = Section::from_json("output", &section);
        let none = Environment(|_| None);
        Options::read(&section, none, &mut Vec::new())
            .unwrap()
            .target
    };
    let first = output_type.sender(&target("http://a.test")).unwrap();
    let second = output_type.sender(&target("http://a.test")).unwrap();
    let other = output_type.sender(&target("http://b.test")).unwrap();
    assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
}

#[tokio::test]
async fn files_that_are_missing_or_no_certificates_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for protocol in ["http/protobuf", "grpc"] {
        for (file, wanted) in [
            ("/none.pem", "/none.pem"),
            (empty.to_str().unwrap(), "empty.pem"),
        ] {
            let section = serde_json::json!({
                "endpoint": "https://a.test", "protocol": protocol, "tls": {"ca_cert": file},
            });
            let error = open(Otlp::default(), &section.to_string()).unwrap_err();
            assert!(error.to_string().contains(wanted), "{protocol}: {error}");
        }
    }
}
