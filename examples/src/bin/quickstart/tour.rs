//! The requests that show what happens, as lines for a shell.

use std::fmt::Write;

/// A request, with what is to be seen in its answer.
struct Step {
    comment: &'static str,
    /// `{service}` and `{bundles}` stand for the two servers.
    curl: &'static str,
    status: u16,
}

const STEPS: [Step; 11] = [
    Step {
        comment: "ann is a clerk: her request passes, and the service is told her role.",
        curl: "{service}/orders -H 'x-user: ann'",
        status: 200,
    },
    Step {
        comment: "Nobody knows who this is: status, headers and body are the policy's.",
        curl: "{service}/orders",
        status: 401,
    },
    Step {
        comment: "bob is a guest, and guests place no orders.",
        curl: "-X POST {service}/orders -H 'x-user: bob'",
        status: 403,
    },
    Step {
        comment: "The app is taken from the path: the policy of blue, then no app at all.",
        curl: "{service}/t/blue/hello",
        status: 200,
    },
    Step { comment: "", curl: "{service}/t/purple/hello", status: 404 },
    Step {
        comment: "The server has no bundle for green: without a policy nothing passes ...",
        curl: "{service}/t/green/hello",
        status: 503,
    },
    Step {
        comment: "... until there is one.",
        curl: "-X POST {bundles}/publish/green/green-1",
        status: 200,
    },
    Step { comment: "", curl: "{service}/t/green/hello", status: 200 },
    Step {
        comment: "Reports are not for bob, until the policy changes.",
        curl: "{service}/reports -H 'x-user: bob'",
        status: 403,
    },
    Step { comment: "", curl: "-X POST {bundles}/publish/reports/reports-2", status: 200 },
    Step { comment: "", curl: "{service}/reports -H 'x-user: bob'", status: 200 },
];

/// The tour through a `service` and its `bundles`, two URLs.
pub(crate) fn tour(service: &str, bundles: &str) -> String {
    let mut text = String::new();
    for Step { comment, curl, status } in STEPS {
        if !comment.is_empty() {
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "\n# {comment}");
        }
        let curl = curl.replace("{service}", service).replace("{bundles}", bundles);
        let _ = writeln!(text, "curl -i {curl} # {status}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_a_line_with_its_status() {
        let text = tour("http://127.0.0.1:1", "http://127.0.0.1:2");
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("curl -i ")).collect();
        assert_eq!(lines.len(), STEPS.len());
        assert_eq!(lines[0], "curl -i http://127.0.0.1:1/orders -H 'x-user: ann' # 200");
        assert!(!text.contains('{'), "{text}");
    }
}
