//! The tool uses of turns, as the durable log has them.

use std::collections::HashMap;

use carrel_core::event::EventBody;
use carrel_core::{LearnerId, TurnId};
use carrel_protocol::gateway::ToolUse;
use carrel_store::turns::Turn;
use carrel_store::{Result, SharedStore};

use crate::stream::PAGE;

/// Tool uses by turn.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tools(HashMap<TurnId, Vec<ToolUse>>);

impl Tools {
    /// Reads those of `turns`, which follow each other; `before` is the turn before them. A learner's turns run one at a
    /// time, so all that they did lies between its newest event and theirs.
    pub(super) async fn read(
        store: &SharedStore,
        learner: &LearnerId,
        before: Option<&Turn>,
        turns: &[Turn],
    ) -> Result<Self> {
        let newest = turns.iter().map(|turn| turn.version).max();
        let newest = newest.unwrap_or_default();
        let mut after = before.map(|turn| turn.version).unwrap_or_default();
        let mut tools = Self::default();
        while after < newest {
            let page = store.events(learner, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.version;
            for event in page {
                tools.follow(event.body);
            }
        }
        Ok(tools)
    }

    fn follow(&mut self, body: EventBody) {
        match body {
            EventBody::Tool {
                turn_id,
                tool_id,
                name,
                status,
                summary,
            } => {
                let tool = ToolUse {
                    tool_id,
                    name,
                    status,
                    summary,
                };
                let uses = self.0.entry(turn_id).or_default();
                match uses.iter_mut().find(|known| known.tool_id == tool.tool_id) {
                    Some(known) => *known = tool,
                    None => uses.push(tool),
                }
            }
            // What an attempt did that died is void.
            EventBody::Restarted { turn_id, .. } => {
                self.0.remove(&turn_id);
            }
            _ => {}
        }
    }

    /// Those of one turn, in the order in which they began.
    pub(super) fn of(&mut self, turn: TurnId) -> Vec<ToolUse> {
        self.0.remove(&turn).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_core::event::ToolStatus;
    use carrel_core::turn::Death;
    use uuid::Uuid;

    const TURN: TurnId = TurnId(Uuid::from_u128(5));
    const OTHER: TurnId = TurnId(Uuid::from_u128(6));

    fn tool(turn_id: TurnId, id: &str, status: ToolStatus) -> EventBody {
        EventBody::Tool {
            turn_id,
            tool_id: id.to_owned(),
            name: "notes".to_owned(),
            status,
            summary: format!("{id} {status}"),
        }
    }

    fn told(bodies: impl IntoIterator<Item = EventBody>) -> Vec<String> {
        let mut tools = Tools::default();
        for body in bodies {
            tools.follow(body);
        }
        let uses = tools.of(TURN).into_iter();
        uses.map(|tool| tool.summary).collect()
    }

    #[test]
    fn a_tool_use_is_told_once_as_it_stands() {
        use ToolStatus::{Done, Failed, Started};
        let uses = [
            tool(TURN, "b", Started),
            tool(TURN, "a", Started),
            tool(OTHER, "a", Failed),
            tool(TURN, "b", Done),
        ];
        assert_eq!(told(uses), ["b done", "a started"]);
    }

    #[test]
    fn what_an_attempt_did_that_died_is_not_told() {
        let restarted = EventBody::Restarted {
            turn_id: TURN,
            death: Death::Infrastructure,
            reason: "its pod ended".to_owned(),
        };
        let uses = [
            tool(TURN, "a", ToolStatus::Started),
            restarted,
            tool(TURN, "c", ToolStatus::Done),
        ];
        assert_eq!(told(uses), ["c done"]);
    }
}
