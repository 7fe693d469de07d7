//! A stand-in for the service that lends keys to whoever shows a web identity token (`AssumeRoleWithWebIdentity`): the server of
//! S3's protocol has none. It lends the server's own keys to whoever shows the token that it expects, for so short a time that they
//! are asked for again and again.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use crate::certificates::Certified;

/// A running stand-in. It ends with the program.
#[derive(Debug)]
pub struct Sts {
    port: u16,
    expected: Arc<Mutex<String>>,
}

impl Sts {
    /// Starts it on loopback, with TLS: its clients speak nothing else. It expects a token.
    ///
    /// # Errors
    /// When nothing can be listened on.
    pub fn start(certificate: &Certified, token: &str) -> io::Result<Self> {
        let config = certificate.server();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sts = Self {
            port: listener.local_addr()?.port(),
            expected: Arc::new(Mutex::new(token.to_owned())),
        };
        let expected = Arc::clone(&sts.expected);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Who breaks off has no answer.
                let _: io::Result<()> = answer(client, &config, &expected);
            }
        });
        Ok(sts)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Expects another token from now on.
    pub fn expect(&self, token: &str) {
        token.clone_into(&mut self.expected.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn answer(
    client: TcpStream,
    config: &Arc<ServerConfig>,
    expected: &Mutex<String>,
) -> io::Result<()> {
    let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, client));
    let mut asked = String::new();
    stream.read_line(&mut asked)?;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    let shown = asked
        .split(['?', '&', ' '])
        .find_map(|pair| pair.strip_prefix("WebIdentityToken="));
    let is_expected = shown == Some(&*expected.lock().unwrap_or_else(PoisonError::into_inner));
    let (status, body) = if is_expected {
        ("200 OK", lent())
    } else {
        let told = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>another is expected</Message></Error></ErrorResponse>";
        ("400 Bad Request", told.to_owned())
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut stream = stream.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// Keys that are over already, without a token of a session, of which the server knows none: each request asks anew, at most every tenth of a second.
fn lent() -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{ACCESS_KEY_ID}</AccessKeyId><SecretAccessKey>{SECRET_ACCESS_KEY}</SecretAccessKey>\
         <SessionToken></SessionToken><Expiration>2020-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}
