//! Decisions without HTTP: which orders may a user see?
//!
//! Run with
//!
//! ```not_rust
//! cargo run --bin decide -- ann
//! ```

#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use opa_core::engine::Module;
use opa_core::{App, Manager, Value};

const POLICY: &str = r#"
package orders

visible contains id if {
    some id, order in data.orders
    order.owner == input.user
}
"#;

const DATA: &[u8] = br#"{"orders": {
    "1": {"owner": "ann"},
    "2": {"owner": "bob"},
    "3": {"owner": "ann"}
}}"#;

#[tokio::main]
async fn main() -> ExitCode {
    let user = std::env::args().nth(1).unwrap_or_else(|| "ann".to_owned());
    examples::exit(run(&user).await)
}

async fn run(user: &str) -> Result<(), Box<dyn Error>> {
    let manager = manager()?;
    let app = manager.app("shop")?;
    app.ready(Duration::from_secs(5)).await?;
    println!("{user} sees {}", visible(&app, user).await?);
    manager.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Every app of this manager has the same bundle, made in memory.
fn manager() -> Result<Manager, Box<dyn Error>> {
    let data = Value::from_json(DATA)?;
    Ok(Manager::in_memory(
        [Module::v1("orders.rego", POLICY)],
        data,
    )?)
}

/// The ids of the orders that `user` may see, as JSON.
async fn visible(app: &App, user: &str) -> Result<String, String> {
    let input = Value::object([(Value::from("user"), Value::from(user))]);
    let decision = app.decide("orders/visible", input).await;
    // Without a result there is a reason why: the caller decides what that means. Never "allowed".
    let result = decision
        .result()
        .ok_or_else(|| decision.reason().to_string())?;
    Ok(result.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_see_their_own_orders() {
        let manager = manager().unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(Duration::from_secs(10)).await.unwrap();
        assert_eq!(visible(&app, "ann").await.unwrap(), r#"["1","3"]"#);
        assert_eq!(visible(&app, "eve").await.unwrap(), "[]");
    }

    #[tokio::test]
    async fn without_a_policy_there_is_no_answer() {
        let manager = manager().unwrap();
        let app = manager.app("shop").unwrap();
        manager.shutdown(Duration::from_secs(10)).await;
        assert_eq!(visible(&app, "ann").await.unwrap_err(), "closed");
    }
}
