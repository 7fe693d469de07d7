//! Where an agent can connect to: its own loopback, and there to its sidecar's proxies.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;

use crate::shell::up;

/// Says of each `host port` among its arguments whether a connection opens.
const TRY: &str = r#"try() { perl -MSocket -e '
    while (my ($host, $port) = splice @ARGV, 0, 2) {
        my $open = eval {
            local $SIG{ALRM} = sub { die "late" };
            alarm 3;
            my $where = $host =~ /:/ ? pack_sockaddr_in6($port, Socket::inet_pton(AF_INET6, $host)) : pack_sockaddr_in($port, inet_aton($host) // die "no name");
            socket(my $socket, $host =~ /:/ ? PF_INET6 : PF_INET, SOCK_STREAM, 0) or die;
            connect($socket, $where) or die;
            1;
        };
        alarm 0;
        print $open ? "OPEN" : "CLOSED", " $host $port\n";
    }
' "$@"; }
"#;

/// Sends a request to a proxy of its own and prints what comes back.
const REQUEST: &str = r#"request() { perl -MSocket -e '
    my ($base, $request, $body) = @ARGV;
    my ($port) = $base =~ /:(\d+)/;
    socket(my $socket, PF_INET, SOCK_STREAM, 0) or die;
    connect($socket, pack_sockaddr_in($port, INADDR_LOOPBACK)) or die "connect: $!";
    my $length = length($body // "");
    syswrite($socket, "$request HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer stolen\r\nx-api-key: stolen\r\nConnection: close\r\nContent-Length: $length\r\n\r\n" . ($body // ""));
    print while <$socket>;
    print "\n";
' "$@"; }
"#;

fn port(url: &str) -> anyhow::Result<u16> {
    Ok(url
        .rsplit(':')
        .next()
        .context("an address has a port")?
        .parse()?)
}

/// The address that this machine has outside of itself, if it has one. Nothing is sent.
fn outer_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

#[tokio::test]
async fn an_agent_connects_to_nothing_but_its_own_proxies() -> anyhow::Result<()> {
    let Some(up) = up("an_agent_connects_to_nothing", &["eve", "nan"]).await? else {
        return Ok(());
    };
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let mut targets = vec![
        ("127.0.0.1".to_owned(), port(up.text("gateway_url"))?),
        ("127.0.0.1".to_owned(), port(up.text("model_url"))?),
        ("127.0.0.1".to_owned(), listener.local_addr()?.port()),
    ];
    targets.extend(
        outer_address().map(|address| (address.to_string(), listener.local_addr().unwrap().port())),
    );
    for (host, port) in &targets {
        assert!(
            TcpStream::connect((host.as_str(), *port)).is_ok(),
            "the host reaches {host} {port}"
        );
    }
    // The neighbour's proxies are on a loopback of its own.
    let ports = up
        .api
        .reply("nan", "echo $ANTHROPIC_BASE_URL $HTTPS_PROXY")
        .await?;
    for url in ports.split_whitespace() {
        targets.push(("127.0.0.1".to_owned(), port(url)?));
    }
    for address in [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "1.1.1.1",
        "::1",
        "example.com",
    ] {
        targets.push((address.to_owned(), 80));
    }
    let arguments: Vec<_> = targets
        .iter()
        .map(|(host, port)| format!("{host} {port}"))
        .collect();
    let arguments = arguments.join(" ");
    let own = "$(echo $ANTHROPIC_BASE_URL | sed 's,.*:,,')";
    let names = "perl -MSocket -e 'print \"NAME\\n\" if gethostbyname(\"example.com\"); \
        socket(my $s, PF_INET, SOCK_DGRAM, 0); print \"SENT\\n\" if send($s, \"x\", 0, pack_sockaddr_in(53, inet_aton(\"1.1.1.1\")))'";
    let script = format!(
        "{TRY} echo $ANTHROPIC_BASE_URL $HTTPS_PROXY\ntry {arguments}\ntry 127.0.0.1 {own}\n{names}"
    );
    let said = up.api.reply("eve", &script).await?;
    let mut lines = said.lines();
    let own_urls = lines.next().context("its own addresses")?;
    let own_ports: Vec<u16> = own_urls
        .split_whitespace()
        .map(port)
        .collect::<Result<_, _>>()?;
    for ((host, port), line) in targets.iter().zip(lines.by_ref()) {
        // By chance the neighbour's port may be its own too.
        if !own_ports.contains(port) {
            assert_eq!(line, format!("CLOSED {host} {port}"), "{said}");
        }
    }
    assert_eq!(
        lines.next(),
        Some(format!("OPEN 127.0.0.1 {}", own_ports[0]).as_str())
    );
    assert_eq!(
        lines.next(),
        None,
        "no name is found and nothing is sent: {said}"
    );
    Ok(())
}

#[tokio::test]
async fn the_way_out_leads_to_no_host_that_its_class_does_not_name() -> anyhow::Result<()> {
    let Some(up) = up("the_way_out", &["eve"]).await? else {
        return Ok(());
    };
    let gateway = port(up.text("gateway_url"))?;
    for target in [
        format!("127.0.0.1:{gateway}"),
        format!("localhost:{gateway}"),
        format!("[::ffff:127.0.0.1]:{gateway}"),
        "169.254.169.254:80".to_owned(),
        "example.com:443".to_owned(),
    ] {
        let script = format!("{REQUEST} request $HTTPS_PROXY 'CONNECT {target}'");
        let said = up.api.reply("eve", &script).await?;
        assert!(said.starts_with("HTTP/1.1 403"), "{target}: {said}");
    }
    let plain = format!("GET http://127.0.0.1:{gateway}/openapi.json");
    let said = up
        .api
        .reply("eve", &format!("{REQUEST} request $HTTP_PROXY '{plain}'"))
        .await?;
    assert!(!said.starts_with("HTTP/1.1 200"), "{said}");
    // The model proxy leads below /v1 and nowhere else, whoever else's name is asked for.
    for path in [
        "/admin/v1/learners",
        "/v1/../admin/v1/learners",
        "/",
        "http://127.0.0.1/metrics",
    ] {
        let script = format!("{REQUEST} request $ANTHROPIC_BASE_URL 'GET {path}'");
        let said = up.api.reply("eve", &script).await?;
        assert!(said.starts_with("HTTP/1.1 4"), "{path}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn models_are_used_in_ones_own_name_whatever_one_says() -> anyhow::Result<()> {
    let Some(up) = up("models_in_ones_own_name", &["eve", "nan"]).await? else {
        return Ok(());
    };
    let body =
        r#"{"model":"default","max_tokens":64,"messages":[{"role":"user","content":"Hello"}]}"#;
    let script = format!("{REQUEST} request $ANTHROPIC_BASE_URL 'POST /v1/messages' '{body}'");
    for _ in 0..2 {
        let said = up.api.reply("eve", &script).await?;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert!(!said.contains("stolen"), "{said}");
    }
    let usage = up.api.admin(Method::GET, "usage?by=learner", None).await?;
    let calls = |name: &str| {
        let rows = usage["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        rows.iter()
            .find(|row| row["key"] == name)
            .map_or(0, |row| row["calls"].as_u64().unwrap_or(0))
    };
    assert_eq!((calls("eve"), calls("nan")), (2, 0), "{usage}");
    // From the host, where the router can be reached, it wants a token, and a learner's word for itself is none.
    let url = format!("{}/v1/messages", up.text("model_url"));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let body: Value = serde_json::from_str(body)?;
    for token in [None, Some("carrel"), Some("eve")] {
        let mut request = client.post(&url).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        assert_eq!(answer.status(), 401, "{token:?}");
        assert_eq!(
            answer.json::<Value>().await?["error"]["type"],
            "authentication_error"
        );
    }
    Ok(())
}
