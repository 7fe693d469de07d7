use strict; use warnings; use Socket;
$SIG{PIPE} = 'IGNORE';
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, pack('l', 1));
bind($listener, sockaddr_in($ENV{CARREL_AGENT_PORT}, INADDR_LOOPBACK)) or die "bind: $!";
listen($listener, 16) or die "listen: $!";
while (accept(my $client, $listener)) {
    my $request = '';
    while ($request !~ /\r\n\r\n/) { sysread($client, $request, 65536, length $request) or last }
    my ($head, $body) = split /\r\n\r\n/, $request, 2;
    if ($head =~ /content-length: *(\d+)/i) {
        while (length $body < $1) { sysread($client, $body, 65536, length $body) or last }
    }
    if ($head =~ m{^GET /healthz}) {
        syswrite($client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    } elsif ($head =~ m{^POST /v1/turn }) {
        syswrite($client, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n");
        turn($client, $body);
    } elsif ($head =~ /^upgrade: *websocket/im) { echo($client)
    } else {
        my ($asked) = $head =~ /^(.*) HTTP/;
        my $page = "$asked\n$body";
        my $length = length $page;
        syswrite($client, "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n$page");
    }
    close $client;
}
sub take {
    my ($client, $wanted) = @_;
    my $got = '';
    while (length $got < $wanted) { sysread($client, $got, $wanted - length $got, length $got) or return '' }
    return $got;
}
# Short messages come back. The handshake fits one key only, that of RFC 6455, section 1.3.
sub echo {
    my ($client) = @_;
    syswrite($client, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    while (my ($kind, $length) = unpack('CC', take($client, 2))) {
        $length &= 127;
        my $mask = take($client, 4);
        my $text = take($client, $length) ^ substr($mask x ($length / 4 + 1), 0, $length);
        syswrite($client, pack('CC', $kind, $length) . $text);
        last if ($kind & 15) == 8;
    }
}
sub say_text {
    my ($client, $text) = @_;
    $text =~ s/([\\"])/\\$1/g;
    $text =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
    syswrite($client, qq({"type":"text","text":"$text"}\n));
}
# The sidecar closes its half when the turn is stopped.
sub stopped {
    my $ready = '';
    vec($ready, fileno $_[0], 1) = 1;
    return select($ready, undef, undef, 0.02) && !sysread($_[0], my $byte, 1);
}
sub save {
    my ($name, $content) = @_;
    open(my $file, '>', $name) or die "$name: $!";
    print $file $content or die "$name: $!";
    close $file or die "$name: $!";
}
# The sum of the bytes that are kept.
sub kept {
    open(my $file, '<', 'kept') or return 0;
    local $/;
    return unpack('%32C*', <$file> // '');
}
sub name_file {
    my ($client, $path) = @_;
    syswrite($client, qq({"type":"file","name":"$path","media_type":"text/plain","path":"$path"}\n));
}
# Asks the model once: the status of its answer, 0 when none came.
sub pay {
    my ($text) = @_;
    my ($port) = $ENV{ANTHROPIC_BASE_URL} =~ /:(\d+)/;
    my $stream = $text =~ /[13579]$/ ? 'true' : 'false';
    my $ask = qq({"model":"default","max_tokens":2000,"stream":$stream,"messages":[{"role":"user","content":"$text"}]});
    my $length = length $ask;
    socket(my $model, PF_INET, SOCK_STREAM, 0) or return 0;
    setsockopt($model, SOL_SOCKET, SO_RCVTIMEO, pack('l!l!', 20, 0));
    connect($model, sockaddr_in($port, INADDR_LOOPBACK)) or return 0;
    syswrite($model, "POST /v1/messages HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
        . "Content-Length: $length\r\n\r\n$ask");
    my $answer = '';
    1 while sysread($model, $answer, 65536, length $answer);
    return $answer =~ m{^HTTP/1.1 (\d+)} ? $1 : 0;
}
sub turn {
    my ($client, $body) = @_;
    my ($text) = $body =~ /"message":\{.*?"text":"((?:[^"\\]|\\.)*)"/;
    my ($context) = $body =~ /"context":(\[.*?\])/;
    my $n = 0;
    if (open(my $file, '<', 'n')) { $n = <$file> }
    $n++;
    save('n', $n);
    say_text($client, "$n");
    if ($text =~ /^slow (\d+)/) {
        for my $piece (1 .. $1) {
            if (stopped($client)) { say_text($client, ' stopped'); last }
            say_text($client, " $piece");
        }
    } elsif ($text =~ /^pay /) { say_text($client, ' ' . pay($text))
    } elsif ($text eq 'die') { kill 'KILL', $$
    } elsif ($text eq 'exit') { exit 1
    } elsif ($text eq 'hang') { 1 until stopped($client)
    } elsif ($text =~ /^write (\d+)/) {
        open(my $random, '<', '/dev/urandom') or die "urandom: $!";
        open(my $file, '>', 'big') or die "big: $!";
        for (1 .. $1) { sysread($random, my $bytes, 1 << 20); syswrite($file, $bytes) or die "big: $!" }
    } elsif ($text =~ /^keep (\d+)/) {
        open(my $random, '<', '/dev/urandom') or die "urandom: $!";
        sysread($random, my $bytes, $1 << 10);
        save('kept', $bytes);
        say_text($client, ' kept ' . kept());
    } elsif ($text eq 'kept') { say_text($client, ' kept ' . kept())
    } elsif ($text =~ /^files (\d+)/) {
        mkdir 'many';
        save("many/$_", $_) for 1 .. $1;
    } elsif ($text =~ /^file (\S+) (.*)/) { save($1, $2); name_file($client, $1)
    } elsif ($text =~ /^link (\S+)/) { symlink($1, 'link') or die "link: $!"; name_file($client, 'link')
    } elsif ($text =~ /^name (\S+)/) { name_file($client, $1)
    } elsif ($text eq 'context') { say_text($client, ' context ' . ($context // 'none'))
    } else { select(undef, undef, undef, 0.03) }
    syswrite($client, qq({"type":"done"}\n));
}
