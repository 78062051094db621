// kfake-server runs franz-go's in-memory fake broker as a process of its own:
// an upper bound for a Go broker without durable storage.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port := flag.Int("port", 9392, "port")
	topics := flag.String("topic", "bench1", "topic with 1 partition")
	topics8 := flag.String("topic8", "bench8", "topic with 8 partitions")
	flag.Parse()
	cl, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(*port), kfake.SeedTopics(1, *topics), kfake.SeedTopics(8, *topics8), kfake.AllowAutoTopicCreation())
	lg.Die(err)
	fmt.Println("ready", cl.ListenAddrs())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt)
	<-ch
	cl.Close()
}
