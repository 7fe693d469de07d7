//! `carrel config show`: what file and variables say, with the origin of what is not the default. It is what the next start takes;
//! a running server is not asked.

use crate::cli::ConfigCommand;
use crate::config;
use crate::output;
use crate::paths;
use crate::run_file::RunFile;

pub(super) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Show(at) = command;
    let data_dir = paths::data_dir(at.folder.data_dir.as_deref())?;
    let file = paths::config_file(at.config, &data_dir);
    let loaded = config::load(file.as_deref(), std::env::vars())?;
    output::line(serde_yaml::to_string(&loaded.config)?.trim_end())?;
    for (path, origin) in &loaded.origins {
        output::talk(&format!("# {path}: from {origin}"));
    }
    let read = file.map_or("no file".to_owned(), |file| file.display().to_string());
    output::talk(&format!(
        "# this is what {read} and the variables of this shell say"
    ));
    if let Some(run) = RunFile::read(&data_dir)?.filter(RunFile::is_of_a_process) {
        output::talk(&format!(
            "# the server on {} (pid {}) was not asked: it has the file, variables and flags of its start, and of what changed \
             since then only providers, routes, prices, router.keys and router.openOnLoopback",
            data_dir.display(),
            run.pid
        ));
    }
    Ok(())
}
