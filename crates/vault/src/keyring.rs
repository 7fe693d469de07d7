//! Learners' data keys, wrapped by the key-encryption key: AES-256-GCM (NIST SP 800-38D), bound to learner and repository.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_core::{LearnerId, RepositoryId};
use carrel_protocol::vault::DataKey;
use carrel_store::heads::WrappedKey;
use zeroize::Zeroizing;

use crate::{Error, durable};

const ALGORITHM: &str = "A256GCM";
const KEY_BYTES: usize = 32;
/// AES-256 key, then Poly1305-AES `k` and `r` of 16 bytes each.
const DATA_KEY_BYTES: usize = 64;

/// The key-encryption keys: one that wraps, and older ones that still unwrap.
pub struct Keyring {
    keys: Vec<KeyEncryptionKey>,
}

struct KeyEncryptionKey {
    id: String,
    key: RandomizedNonceKey,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.id))
            .finish()
    }
}

/// Whether others than this process's user may read a file of keys. Of one that belongs to somebody else (to root, where
/// Kubernetes puts a Secret into a pod) the group may read it: that is how we do.
pub fn is_open_to_others(file: &fs::Metadata) -> bool {
    let is_ours = file.uid() == rustix::process::geteuid().as_raw();
    let forbidden = if is_ours { 0o077 } else { 0o037 };
    file.mode() & forbidden != 0
}

impl Keyring {
    /// Reads a key file: 32 bytes in base64 a line, the first wraps, all unwrap. To rotate, put a new first line, restart,
    /// run the re-wrap, then remove the old line.
    ///
    /// # Errors
    /// When it cannot be read, others may read it, or it holds no such keys.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File {
            doing: format!("reading the key-encryption key {}", path.display()),
            source,
        };
        let wrong = |line: Option<usize>, what| Error::KeyFile {
            place: match line {
                Some(line) => format!("{}:{line}", path.display()),
                None => path.display().to_string(),
            },
            what,
        };
        if is_open_to_others(&fs::metadata(path).map_err(failed)?) {
            return Err(wrong(None, OPEN_TO_OTHERS));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let lines = (1..).zip(text.lines().map(str::trim));
        let keys = lines
            .filter(|(_, line)| !line.is_empty())
            .map(|(at, line)| KeyEncryptionKey::parse(line).ok_or_else(|| wrong(Some(at), NO_KEY)))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(wrong(None, NO_KEY_AT_ALL));
        }
        durable::clear_beside(path);
        Ok(Self { keys })
    }

    /// Reads a key file, after making one of mode 0600 with a new key if there is none.
    ///
    /// # Errors
    /// As [`Self::read`], and when it cannot be made.
    pub fn read_or_create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File {
            doing: format!("writing the key-encryption key {}", path.display()),
            source,
        };
        if !path.exists() {
            let line = Zeroizing::new(Self::new_line()?);
            match durable::make_file(path, line.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Self::read(path)
    }

    /// The line of a key file with a new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new_line() -> Result<String, Error> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(key.as_mut()).map_err(|_| NO_RANDOMNESS)?;
        Ok(STANDARD.encode(key.as_ref()) + "\n")
    }

    /// A new data key and the same wrapped.
    pub(crate) fn generate(
        &self,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<WrappedKey, Error> {
        let mut key = Zeroizing::new([0; DATA_KEY_BYTES]);
        rand::fill(key.as_mut()).map_err(|_| NO_RANDOMNESS)?;
        self.wrap(key.as_ref(), learner, repository)
    }

    fn wrap(
        &self,
        key: &[u8],
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<WrappedKey, Error> {
        let first = self.keys.first().ok_or(UNKNOWN)?;
        let mut sealed = key.to_vec();
        let nonce = first
            .key
            .seal_in_place_append_tag(Aad::from(bound_to(learner, repository)), &mut sealed)
            .map_err(|_| Error::Key("a data key cannot be wrapped"))?;
        let mut wrapped = nonce.as_ref().to_vec();
        wrapped.append(&mut sealed);
        Ok(WrappedKey {
            algorithm: ALGORITHM.to_owned(),
            key_id: first.id.clone(),
            wrapped,
        })
    }

    fn open(
        &self,
        wrapped: &WrappedKey,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let opener = self
            .keys
            .iter()
            .find(|key| key.id == wrapped.key_id && wrapped.algorithm == ALGORITHM)
            .ok_or(UNKNOWN)?;
        let (nonce, sealed) = wrapped
            .wrapped
            .split_at_checked(NONCE_LEN)
            .ok_or(NOT_OPENED)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NOT_OPENED)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let length = opener
            .key
            .open_in_place(nonce, Aad::from(bound_to(learner, repository)), &mut opened)
            .map_err(|_| NOT_OPENED)?
            .len();
        opened.truncate(length);
        if length == DATA_KEY_BYTES {
            Ok(opened)
        } else {
            Err(NOT_OPENED)
        }
    }

    /// The data key inside its wrapping.
    pub(crate) fn unwrap(
        &self,
        wrapped: &WrappedKey,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<DataKey, Error> {
        let key = self.open(wrapped, learner, repository)?;
        Ok(DataKey {
            encrypt: STANDARD.encode(&key[..32]),
            mac_k: STANDARD.encode(&key[32..48]),
            mac_r: STANDARD.encode(&key[48..]),
        })
    }

    /// The same data key wrapped by the first key; `None` when it is already.
    pub(crate) fn rewrap(
        &self,
        wrapped: &WrappedKey,
        learner: &LearnerId,
        repository: RepositoryId,
    ) -> Result<Option<WrappedKey>, Error> {
        if self
            .keys
            .first()
            .is_some_and(|key| key.id == wrapped.key_id)
        {
            return Ok(None);
        }
        let key = self.open(wrapped, learner, repository)?;
        self.wrap(&key, learner, repository).map(Some)
    }
}

const NO_RANDOMNESS: Error = Error::Key("the system gives no randomness");
const UNKNOWN: Error = Error::Key("a data key is wrapped by a key that is not in the key file");
const NOT_OPENED: Error = Error::Key("a wrapped data key does not open");
const OPEN_TO_OTHERS: &str =
    "others may read this file of the key-encryption key: run 'chmod 600' on it";
const NO_KEY: &str =
    "a key-encryption key must be 32 bytes in base64, as 'openssl rand -base64 32' writes them";
const NO_KEY_AT_ALL: &str = "there is no key-encryption key in it: put the one back that was there; \
    without it the snapshots of learners cannot be opened";

impl KeyEncryptionKey {
    fn parse(line: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(line).ok()?);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        let name = digest(&SHA256, &bytes);
        Some(Self {
            id: hex::encode(&name.as_ref()[..8]),
            key: RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?,
        })
    }
}

fn bound_to(learner: &LearnerId, repository: RepositoryId) -> Vec<u8> {
    format!("carrel data key 1\n{learner}\n{repository}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn write(folder: &Path, lines: &[&str]) -> std::path::PathBuf {
        let path = folder.join(format!("kek-{}", lines.len()));
        durable::make_file(&path, lines.join("\n").as_bytes()).unwrap();
        path
    }

    fn bob() -> (LearnerId, RepositoryId) {
        ("bob".parse().unwrap(), RepositoryId(Uuid::from_u128(9)))
    }

    #[test]
    fn a_key_opens_only_for_its_learner_and_repository() {
        let folder = tempfile::tempdir().unwrap();
        let ring = Keyring::read_or_create(&folder.path().join("kek")).unwrap();
        let (learner, repository) = bob();
        let wrapped = ring.generate(&learner, repository).unwrap();
        let key = ring.unwrap(&wrapped, &learner, repository).unwrap();
        let again = Keyring::read_or_create(&folder.path().join("kek")).unwrap();
        assert!(again.unwrap(&wrapped, &learner, repository).unwrap() == key);

        let other = RepositoryId(Uuid::from_u128(8));
        assert!(ring.unwrap(&wrapped, &learner, other).is_err());
        assert!(
            ring.unwrap(&wrapped, &"eve".parse().unwrap(), repository)
                .is_err()
        );
        for (place, bit) in bits(&wrapped.wrapped) {
            let mut bent = wrapped.clone();
            bent.wrapped[place] ^= bit;
            assert!(ring.unwrap(&bent, &learner, repository).is_err());
        }
    }

    fn bits(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> + use<> {
        (0..bytes.len()).flat_map(|place| (0..8).map(move |bit| (place, 1 << bit)))
    }

    #[test]
    fn a_flipped_bit_of_the_key_file_opens_nothing_and_is_no_other_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let (learner, repository) = bob();
        let ring = Keyring::read_or_create(&path).unwrap();
        let wrapped = ring.generate(&learner, repository).unwrap();
        let key = ring.unwrap(&wrapped, &learner, repository).unwrap();
        let right = fs::read(&path).unwrap();
        let mut refused = 0;
        for (place, bit) in bits(&right) {
            let mut wrong = right.clone();
            wrong[place] ^= bit;
            fs::write(&path, &wrong).unwrap();
            let read = Keyring::read(&path);
            match read.and_then(|ring| ring.unwrap(&wrapped, &learner, repository)) {
                Ok(same) => assert!(same == key, "bit {bit} of byte {place}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 300, "{refused}");
    }

    #[test]
    fn rotation_keeps_the_data_key_and_changes_its_wrapping() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        let (learner, repository) = bob();
        let before = Keyring::read(&write(folder.path(), &[&old])).unwrap();
        let wrapped = before.generate(&learner, repository).unwrap();
        let after = Keyring::read(&write(folder.path(), &[&new, &old])).unwrap();
        let rewrapped = after
            .rewrap(&wrapped, &learner, repository)
            .unwrap()
            .unwrap();
        assert_ne!(rewrapped.key_id, wrapped.key_id);
        assert!(
            after
                .rewrap(&rewrapped, &learner, repository)
                .unwrap()
                .is_none()
        );
        let key = |ring: &Keyring, wrapped| ring.unwrap(wrapped, &learner, repository);
        assert!(key(&after, &rewrapped).unwrap() == key(&before, &wrapped).unwrap());
        assert!(key(&before, &rewrapped).is_err());
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        Keyring::read_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Keyring::read_or_create(&path).unwrap_err().to_string();
        assert!(
            refused.starts_with(&path.display().to_string()),
            "{refused}"
        );
        assert!(refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn the_group_may_read_a_key_file_of_somebody_else_as_a_mounted_secret_is() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        Keyring::read_or_create(&path).unwrap();
        if chown(&path, Some(12_345), None).is_err() {
            println!("SKIP the_group_may_read: only root gives a file away");
            return;
        }
        for (mode, is_open) in [(0o440, false), (0o400, false), (0o444, true), (0o460, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Keyring::read(&path).is_err(), is_open, "{mode:o}");
        }
    }

    #[test]
    fn no_copy_of_a_key_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let left = folder.path().join(format!("kek.{}.new", "0".repeat(32)));
        for _made_then_read in 0..2 {
            fs::write(&left, "a key").unwrap();
            Keyring::read_or_create(&path).unwrap();
            assert!(!left.exists());
        }
    }

    #[test]
    fn a_line_that_is_no_key_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let good = STANDARD.encode([1; 32]);
        for (lines, place) in [
            (&[good.as_str(), "", "c2hvcnQ="][..], ":3: "),
            (&["no base64!", &good], ":1: "),
            (&[""], ": there is no key-encryption key in it"),
        ] {
            let path = write(folder.path(), lines);
            let refused = Keyring::read(&path).unwrap_err().to_string();
            let place = format!("{}{place}", path.display());
            assert!(refused.starts_with(&place), "{refused}");
            assert!(
                !refused.contains("c2hvcnQ") && !refused.contains("no base64"),
                "{refused}"
            );
        }
    }
}
