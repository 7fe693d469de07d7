// inside is what runs in containers of tests. Without words it waits until it is asked to end, and reaps orphans: so it holds a pod's
// namespaces. "say WORDS" prints them and ends, "exit CODE" ends, "fetch URL" gets it and prints what came, "serve PORT" answers each
// request with the name of its host.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
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
	case "serve":
		name, _ := os.Hostname()
		check(http.ListenAndServe(":"+words[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, name)
		})))
	default:
		check(fmt.Errorf("no such word: %s", words[0]))
	}
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
