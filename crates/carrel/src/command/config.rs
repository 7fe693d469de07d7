//! `carrel config show`: the configuration as it takes effect, with the origin of what is not the default.

use crate::cli::ConfigCommand;
use crate::config;
use crate::output;
use crate::paths;

pub(super) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Show {
        config: named,
        data_dir,
    } = command;
    let file = match named {
        Some(file) => Some(file),
        None => {
            Some(paths::data_dir(data_dir.as_deref())?.join("carrel.yaml")).filter(|f| f.exists())
        }
    };
    let loaded = config::load(file.as_deref(), std::env::vars())?;
    output::line(serde_yaml::to_string(&loaded.config)?.trim_end())?;
    for (path, origin) in &loaded.origins {
        output::talk(&format!("# {path}: from {origin}"));
    }
    Ok(())
}
