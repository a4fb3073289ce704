// go-redis against a node and sentinels that switch. Prints what `cargo test` would. The servers are named in the variable
// RIG: see run.py. The client is Debian's, golang-gopkg-redis.v5-dev, whose cluster client is too old for the answer of
// any Redis 7 to CLUSTER SLOTS.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gopkg.in/redis.v5"
)

const (
	patience = 30 * time.Second
	longest  = 60 * time.Second
)

type process struct{ Port, Pid int }

var rig struct {
	Node    int
	Watched struct {
		Name   string
		Nodes  []process
		Guards []int
	}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Waits for a condition; an error counts as not yet, and is told in the end.
func until(what string, condition func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil || time.Now().After(deadline) {
			if err != nil {
				err = fmt.Errorf("not within %v: %s (%v)", patience, what, err)
			}
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func equal(got, want interface{}) error {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("got %v instead of %v", got, want)
	}
	return nil
}

// The first of these that failed.
func first(errors ...error) error {
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	return nil
}

// kill -9 of the node at this address.
func kill(nodes []process, at string) error {
	for _, node := range nodes {
		if strings.HasSuffix(at, ":"+strconv.Itoa(node.Port)) {
			return syscall.Kill(node.Pid, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("nobody is at %s", at)
}

func typesAndTransactions() error {
	c := redis.NewClient(&redis.Options{Addr: address(rig.Node)})
	defer c.Close()
	err := first(
		c.FlushAll().Err(),
		equal(c.Set("k", "v", time.Minute).Val(), "OK"),
		equal(c.Get("k").Val(), "v"),
		equal(c.Get("none").Err(), redis.Nil),
		equal(c.TTL("k").Val() > 50*time.Second, true),
		equal(c.RPush("l", "a", "b", "c").Val(), 3),
		equal(c.LRange("l", 0, -1).Val(), []string{"a", "b", "c"}),
		equal(c.ZAdd("z", redis.Z{Score: 1.5, Member: "m"}).Val(), 1),
		equal(c.ZScore("z", "m").Val(), 1.5),
		equal(c.HMSet("h", map[string]string{"f": "1"}).Val(), "OK"),
		equal(c.HGetAll("h").Val(), map[string]string{"f": "1"}),
		equal(c.Incr("l").Err() != nil, true),
		equal(redis.NewScript("return {KEYS[1], ARGV[1]}").Run(c, []string{"k"}, "a").Val(), []string{"k", "a"}),
	)
	if err != nil {
		return err
	}
	var n *redis.IntCmd
	if _, err = c.TxPipelined(func(p *redis.Pipeline) error {
		p.Set("n", "1", 0)
		n = p.Incr("n")
		return nil
	}); err != nil {
		return err
	}
	// A key that changed since it was watched undoes the transaction.
	undone := c.Watch(func(tx *redis.Tx) error {
		c.Set("n", "10", 0)
		_, err := tx.Pipelined(func(p *redis.Pipeline) error { return p.Set("n", "20", 0).Err() })
		return err
	}, "n")
	return first(equal(n.Val(), 2), equal(undone, redis.TxFailedErr), equal(c.Get("n").Val(), "10"))
}

func publishAndSubscribe() error {
	c := redis.NewClient(&redis.Options{Addr: address(rig.Node)})
	defer c.Close()
	s, err := c.PSubscribe("news.*")
	if err != nil {
		return err
	}
	defer s.Close()
	if err := until("the subscription", func() error { return equal(c.Publish("news.a", "x").Val(), 1) }); err != nil {
		return err
	}
	message, err := s.ReceiveMessage()
	if err != nil {
		return err
	}
	return first(equal(message.Channel, "news.a"), equal(message.Payload, "x"))
}

func sentinelsThatSwitch() error {
	var guards []string
	for _, port := range rig.Watched.Guards {
		guards = append(guards, address(port))
	}
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: rig.Watched.Name, SentinelAddrs: guards})
	defer c.Close()
	guard := redis.NewClient(&redis.Options{Addr: guards[0]})
	defer guard.Close()
	primary := func() string {
		found := redis.NewStringSliceCmd("sentinel", "get-master-addr-by-name", rig.Watched.Name)
		if guard.Process(found); found.Err() != nil || len(found.Val()) != 2 {
			return ""
		}
		return net.JoinHostPort(found.Val()[0], found.Val()[1])
	}
	told, err := guard.Subscribe("+switch-master")
	if err != nil {
		return err
	}
	defer told.Close()
	if err := c.Set("k", "v", 0).Err(); err != nil {
		return err
	}
	wait := redis.NewIntCmd("wait", 2, 20000)
	if c.Process(wait); wait.Val() != 2 {
		return fmt.Errorf("only %d replicas have the write", wait.Val())
	}
	old := primary()
	if err := kill(rig.Watched.Nodes, old); err != nil {
		return err
	}
	if err := until("a write after the switch", func() error { return c.Set("after", "w", 0).Err() }); err != nil {
		return err
	}
	message, err := told.ReceiveMessage()
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(old)
	return first(
		equal(strings.HasPrefix(message.Payload, strings.Join([]string{rig.Watched.Name, host, port, host}, " ")), true),
		equal(primary() != old, true),
		equal(c.Get("k").Val(), "v"),
		equal(c.Get("after").Val(), "w"),
	)
}

// A check that neither ends nor fails is a failure, too.
func bounded(check func() error) error {
	done := make(chan error, 1)
	go func() { done <- check() }()
	select {
	case err := <-done:
		return err
	case <-time.After(longest):
		return fmt.Errorf("no end after %v", longest)
	}
}

func main() {
	if err := json.Unmarshal([]byte(os.Getenv("RIG")), &rig); err != nil {
		fmt.Println("RIG:", err)
		os.Exit(1)
	}
	checks := []struct {
		name  string
		check func() error
	}{
		{"types and transactions", typesAndTransactions},
		{"publish and subscribe", publishAndSubscribe},
		{"sentinels that switch", sentinelsThatSwitch},
	}
	passed, failed := 0, 0
	for _, c := range checks {
		if len(os.Args) > 1 && !strings.Contains(c.name, os.Args[1]) {
			continue
		}
		if err := bounded(c.check); err != nil {
			failed++
			fmt.Printf("test go-redis: %s ... FAILED\n%v\n", c.name, err)
			continue
		}
		passed++
		fmt.Printf("test go-redis: %s ... ok\n", c.name)
	}
	word := "ok"
	if failed > 0 {
		word = "FAILED"
	}
	fmt.Printf("\ntest result: %s. %d passed; %d failed\n", word, passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
