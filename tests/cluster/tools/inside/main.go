// inside is what runs in containers of tests. Without words it waits until it is asked to end, and reaps orphans: so it holds a pod's
// namespaces. "say WORDS" prints them and ends, "exit CODE" ends, "fetch URL" gets it and prints what came, "serve PORT" answers each
// request with the name of its host, "reach ADDRESS..." says of each whether it takes a connection within two seconds (HOST:PORT) or
// whether a server answers a name (NAME@HOST:PORT). "turn" is an agent that counts its turns in a file of its folder, answers with the
// number, and does what each line of the message says: "slow SECONDS", "eat MIB" of memory, "reach ADDRESS...", "get URL", "through URL" the
// proxy of its environment, "read PATH" and "list PATH", "write PATH", "keep MIB [PATH]", "listen PORT" while the turn lasts.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	words := append(os.Args[1:], "", "")
	switch words[0] {
	case "":
		hold()
	case "say":
		fmt.Println(strings.Join(os.Args[2:], " "))
	case "exit":
		code, err := strconv.Atoi(words[1])
		check(err)
		os.Exit(code)
	case "fetch":
		client := http.Client{Timeout: 3 * time.Second}
		response, err := client.Get(words[1])
		check(err)
		body, err := io.ReadAll(response.Body)
		check(err)
		fmt.Printf("%d %s", response.StatusCode, body)
	case "reach":
		fmt.Println(strings.Join(reach(os.Args[2:]), "\n"))
	case "turn":
		turn()
	case "serve":
		name, _ := os.Hostname()
		check(http.ListenAndServe(":"+words[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, name)
		})))
	default:
		check(fmt.Errorf("no such word: %s", words[0]))
	}
}

func turn() {
	text, err := io.ReadAll(os.Stdin)
	check(err)
	kept, _ := os.ReadFile("n")
	n, _ := strconv.Atoi(string(kept))
	check(os.WriteFile("n", []byte(strconv.Itoa(n+1)), 0o644))
	fmt.Print(n + 1)
	for _, line := range strings.Split(string(text), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		if word == "reach" {
			fmt.Printf("\n%s", strings.Join(reach(strings.Fields(rest)), "\n"))
		} else if said := obey(word, rest); said != "" {
			fmt.Printf("\n%s: %s", line, said)
		}
	}
}

func obey(word, rest string) string {
	number, _ := strconv.Atoi(rest)
	switch word {
	case "slow":
		time.Sleep(time.Duration(number) * time.Second)
		return "done"
	case "eat":
		eaten := make([][]byte, number)
		for i := range eaten {
			eaten[i] = bytes.Repeat([]byte{1}, 1<<20)
		}
		return strconv.Itoa(len(eaten))
	case "listen":
		_, err := net.Listen("tcp", ":"+rest)
		check(err)
		return "listening"
	case "get", "through":
		transport := http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		if word == "through" {
			transport.Proxy = http.ProxyFromEnvironment
		}
		client := http.Client{Timeout: 3 * time.Second, Transport: &transport}
		response, err := client.Get(rest)
		if err != nil {
			return err.Error()
		}
		return strconv.Itoa(response.StatusCode)
	case "read":
		content, err := os.ReadFile(rest)
		if err != nil {
			return err.Error()
		}
		return strconv.Quote(string(content))
	case "list":
		entries, err := os.ReadDir(rest)
		if err != nil {
			return err.Error()
		}
		names := make([]string, len(entries))
		for i, entry := range entries {
			names[i] = entry.Name()
		}
		return strings.Join(names, " ")
	case "write":
		if err := os.WriteFile(rest, nil, 0o644); err != nil {
			return err.Error()
		}
		return "written"
	case "keep":
		much, path, _ := strings.Cut(rest, " ")
		number, err := strconv.Atoi(much)
		check(err)
		if path == "" {
			path = "kept"
		}
		file, err := os.Create(path)
		check(err)
		defer file.Close()
		_, err = io.CopyN(file, rand.Reader, int64(number)<<20)
		check(err)
		return "kept"
	}
	return ""
}

// Tries all at once: for each a line "reach ADDRESS: reached", or why not.
func reach(addresses []string) []string {
	lines := make([]string, len(addresses))
	var tries sync.WaitGroup
	for i, address := range addresses {
		tries.Go(func() {
			lines[i] = "reach " + address + ": " + try(address)
		})
	}
	tries.Wait()
	return lines
}

func try(address string) string {
	const within = 2 * time.Second
	if name, server, ok := strings.Cut(address, "@"); ok {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}}
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if _, err := resolver.LookupHost(ctx, name); err != nil {
			return err.Error()
		}
		return "reached"
	}
	connection, err := net.DialTimeout("tcp", address, within)
	if err != nil {
		return err.Error()
	}
	connection.Close()
	return "reached"
}

func hold() {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
