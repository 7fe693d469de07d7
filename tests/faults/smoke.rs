use carrel_tests::{Setup, Up, agent};
use serde_json::json;

#[tokio::test]
async fn agents_count_their_turns() -> anyhow::Result<()> {
    let setup = Setup {
        documents: vec![
            agent::http("http", &json!({})),
            agent::command("command", &json!({})),
            agent::learner("ada", "http"),
            agent::learner("bob", "command"),
        ],
        first: None,
    };
    let Some(mut up) = Up::start("smoke", setup).await? else { return Ok(()) };
    for n in 1..4 {
        for learner in ["ada", "bob"] {
            assert_eq!(up.api.reply(learner, "count").await?, n.to_string());
        }
    }
    println!("{:?}", carrel_tests::machine::pods(up.pid()));
    for m in ["slow 5", "write 1", "files 3", "context"] {
        println!("{m}: {}", up.api.reply("ada", m).await?);
    }
    for m in ["die", "exit"] {
        println!("{m}: {:?}", up.api.failure("ada", m).await?);
    }
    println!("{}", up.api.reply("ada", "count").await?);
    println!("{:?}", up.terminate().await?);
    Ok(())
}
