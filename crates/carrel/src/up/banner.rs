//! What is printed when everything is ready.

use super::parts::Parts;
use crate::cli::UpOutput;
use crate::output;

pub(super) fn print(format: UpOutput, parts: &Parts) -> anyhow::Result<()> {
    let run = &parts.run;
    match format {
        UpOutput::Json => output::line(&serde_json::to_string(run)?),
        UpOutput::Text => {
            let mut lines = vec![
                "Carrel is ready.".to_owned(),
                format!("  chat       {}", parts.chat_link),
                "             (signs in learner 'me', once; 'carrel learner link me' makes another)".to_owned(),
                format!("  console    {}", parts.console_link),
                format!("  model API  {}", run.model_url),
                format!("  data       {}", run.data_dir),
                format!("  isolation  {}{}", run.isolation, missing(&run.limits_missing)),
                format!("  providers  {}", run.providers.join(", ")),
            ];
            lines.extend(
                parts
                    .notices
                    .iter()
                    .map(|notice| format!("  note       {notice}")),
            );
            lines.push(
                "Stop it with Ctrl-C: learners fall asleep with everything saved.".to_owned(),
            );
            output::line(&lines.join("\n"))
        }
    }
}

fn missing(limits: &[String]) -> String {
    if limits.is_empty() {
        String::new()
    } else {
        format!(" (not limited here: {})", limits.join(", "))
    }
}
