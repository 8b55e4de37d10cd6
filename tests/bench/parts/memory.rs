//! What a Function costs the gateway's memory, from gateways with and without 1,000 of them.

use futures::{StreamExt, stream};
use lambent_api::Protocol;
use lambent_tests::Request;

use super::{Plan, Rows, shape::Columns};
use crate::{
    local::{Backend, Gateway, Scene, settled_memory},
    progress,
    row::{Row, Wanted},
    stats::{Estimate, differences},
};

const FUNCTIONS: usize = 1000;
const AT_ONCE: usize = 16;

/// Measures.
pub async fn run(plan: Plan) -> Rows {
    let backend = Backend::start(&plan.folder).await?;
    let address = backend.contestant().target.address;
    let rounds = plan.rounds(6, 2);
    let mut columns = Columns::default();
    for round in 0..rounds {
        progress::say(&format!("round {} of {rounds}", round + 1));
        let scenes = [("none", 0, None), ("asleep", FUNCTIONS, None), ("running", FUNCTIONS, Some(address))];
        for (name, functions, backend) in scenes {
            let gateway = Gateway::start(&plan.folder, Scene { functions, backend, protocol: Protocol::Http1 }).await?;
            if backend.is_some() {
                call_all(&gateway, functions).await?;
            }
            columns.push(name, settled_memory(&gateway).await?);
        }
    }
    let each = |name: &str| {
        let more = differences(columns.of(name), columns.of("none"));
        Estimate::median(&more.iter().map(|kib| kib / FUNCTIONS as f64).collect::<Vec<_>>())
    };
    let empty = columns.of("none").iter().map(|kib| kib / 1024.0).collect::<Vec<_>>();
    Ok(vec![
        Row::new("gateway's memory for each of 1,000 Functions at zero", "KiB", each("asleep")?)
            .wanted(Wanted::AtMost(10.0)),
        Row::new("the same, each with an instance, called once, its connection kept", "KiB", each("running")?),
        Row::new("gateway without any Function", "MiB", Estimate::median(&empty)?),
    ])
}

/// One call of each.
async fn call_all(gateway: &Gateway, functions: usize) -> anyhow::Result<()> {
    let public = lambent_tests::Gateway::new(&format!("http://{}", gateway.address()));
    let calls = (0..functions).map(|n| {
        let public = &public;
        async move { public.try_send(Request::get(&format!("/fn/bench/hello-{n}/"))).await }
    });
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
    for answer in answers {
        let answer = answer?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    }
    Ok(())
}
