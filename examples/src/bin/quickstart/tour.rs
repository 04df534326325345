//! The requests that show what happens, as lines for a shell.

use std::fmt::{self, Display, Formatter};

/// What to try with a service and its bundle server, two URLs.
pub(crate) struct Tour<'a> {
    pub(crate) service: &'a str,
    pub(crate) bundles: &'a str,
}

/// A request, with what there is to be seen.
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
        comment: "Who is this? Status, headers and body are the policy's own.",
        curl: "{service}/orders",
        status: 401,
    },
    Step {
        comment: "bob is a guest, and guests place no orders.",
        curl: "-X POST {service}/orders -H 'x-user: bob'",
        status: 403,
    },
    Step {
        comment: "Here the path names the app: blue has one, purple is unknown.",
        curl: "{service}/t/blue/hello",
        status: 200,
    },
    Step {
        comment: "",
        curl: "{service}/t/purple/hello",
        status: 404,
    },
    Step {
        comment: "green has no bundle yet. Without a policy nothing passes ...",
        curl: "{service}/t/green/hello",
        status: 503,
    },
    Step {
        comment: "... until there is one.",
        curl: "-X POST {bundles}/publish/green/green-1",
        status: 200,
    },
    Step {
        comment: "",
        curl: "{service}/t/green/hello",
        status: 200,
    },
    Step {
        comment: "Reports are not for bob, until their policy changes.",
        curl: "{service}/reports -H 'x-user: bob'",
        status: 403,
    },
    Step {
        comment: "",
        curl: "-X POST {bundles}/publish/reports/reports-2",
        status: 200,
    },
    Step {
        comment: "",
        curl: "{service}/reports -H 'x-user: bob'",
        status: 200,
    },
];

impl Display for Tour<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { service, bundles } = self;
        writeln!(f, "A service on {service}, its bundle server on {bundles}.")?;
        writeln!(
            f,
            "The virtual OPAs of orders, reports and blue are ready. Try, in this order:"
        )?;
        for Step {
            comment,
            curl,
            status,
        } in STEPS
        {
            if !comment.is_empty() {
                writeln!(f, "\n# {comment}")?;
            }
            let curl = curl
                .replace("{service}", service)
                .replace("{bundles}", bundles);
            writeln!(f, "curl -i {curl} # {status}")?;
        }
        writeln!(f, "\nCtrl-C ends it. Each decision is logged below:\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_a_line_with_its_status() {
        let tour = Tour {
            service: "http://127.0.0.1:1",
            bundles: "http://127.0.0.1:2",
        };
        let text = tour.to_string();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("curl -i "))
            .collect();
        assert_eq!(lines.len(), STEPS.len());
        assert_eq!(
            lines[0],
            "curl -i http://127.0.0.1:1/orders -H 'x-user: ann' # 200"
        );
        assert!(!text.contains('{'), "{text}");
    }
}
