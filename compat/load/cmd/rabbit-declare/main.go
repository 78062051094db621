// rabbit-declare (re)creates RabbitMQ queues {topic}-{i} of a given type.
package main

import (
	"flag"
	"fmt"

	"github.com/millrace/millrace/compat/load/internal/lg"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5672", "broker address")
	topic := flag.String("topic", "bench", "queue name prefix")
	n := flag.Int("partitions", 1, "queues")
	typ := flag.String("type", "classic", "classic | quorum | stream")
	flag.Parse()
	c, err := amqp.Dial("amqp://guest:guest@" + *addr)
	lg.Die(err)
	defer c.Close()
	for p := range *n {
		ch, err := c.Channel()
		lg.Die(err)
		q := fmt.Sprintf("%s-%d", *topic, p)
		_, err = ch.QueueDelete(q, false, false, false)
		lg.Die(err)
		args := amqp.Table{"x-queue-type": *typ}
		if *typ == "classic" {
			args["x-queue-mode"] = "lazy"
		}
		_, err = ch.QueueDeclare(q, true, false, false, false, args)
		lg.Die(err)
	}
	fmt.Println("declared", *n, *typ)
}
