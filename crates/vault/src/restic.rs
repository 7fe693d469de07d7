//! What stock `restic` needs to open a learner's repository: its place, and a password whose key file is made on first request.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrel_core::{LearnerId, RepositoryId};
use carrel_protocol::vault::ResticAccess;
use rustic_core::KeyOptions;
use zeroize::Zeroizing;

use crate::{Error, Vault, repository};

impl Vault {
    /// Lets stock `restic` open a learner's repository.
    ///
    /// # Errors
    /// [`Error::NotForRestic`] when objects are neither in a local folder nor in a bucket.
    pub async fn restic_access(&self, learner: &LearnerId) -> Result<ResticAccess, Error> {
        let _alone = self.exclusive(learner).await;
        let (_, repository) = self.head(learner).await?;
        let place = self.objects().for_restic(repository);
        let (place, options) = place.ok_or(Error::NotForRestic)?;
        let password_file = self.password_file(repository);
        let access = ResticAccess {
            repository: place,
            options,
            password_file: password_file.display().to_string(),
        };
        if password_file.exists() {
            return Ok(access);
        }
        let keyed = self.keyed(learner, repository).await?;
        self.blocking(move || {
            let mut random = Zeroizing::new([0; 32]);
            rand::fill(random.as_mut())
                .map_err(|_| Error::Key("the system gives no randomness"))?;
            let password = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_ref()));
            let repo = repository::open(&keyed.backend, &keyed.key)?;
            let options = KeyOptions::default().hostname("carrel".to_owned());
            keyed.backend.judge(repo.add_key(&password, &options))?;
            // Last: a password without its key would be no use, and would look like one.
            write(&password_file, &password)
        })
        .await?;
        Ok(access)
    }

    fn password_file(&self, repository: RepositoryId) -> PathBuf {
        self.options().password_folder.join(repository.to_string())
    }

    pub(crate) fn forget_password(&self, repository: RepositoryId) -> Result<(), Error> {
        match fs::remove_file(self.password_file(repository)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::File {
                doing: "removing a password for restic".to_owned(),
                source,
            }),
            _ => Ok(()),
        }
    }
}

fn write(path: &Path, password: &str) -> Result<(), Error> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(password.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| Error::File {
        doing: format!("writing a password for restic to {}", path.display()),
        source,
    })
}
