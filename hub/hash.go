package hub

import "math/bits"

// PartitionOf is the partition, of n, that a partition key is assigned to: the
// SDKs' own mapping, so that a client that maps keys itself and the broker agree.
// Source: Azure/azure-sdk-for-net Azure.Messaging.EventHubs src/Core/PartitionResolver.cs;
// Azure/azure-sdk-for-python azure/eventhub/_buffered_producer/_partition_resolver.py.
func PartitionOf(key string, n int) int {
	p := int(keyHash(key)) % n // truncated towards zero, as theirs
	if p < 0 {
		p = -p
	}
	return p
}

// keyHash is Bob Jenkins's lookup3 hashlittle2 with both seeds zero, its two
// results XORed and cut to sixteen signed bits.
func keyHash(key string) int16 {
	a := 0xDEADBEEF + uint32(len(key))
	b, c := a, a
	word := func(i int) uint32 { // four bytes from i, fewer at the end
		var w uint32
		for k := range 4 {
			if i+k < len(key) {
				w |= uint32(key[i+k]) << (8 * k)
			}
		}
		return w
	}
	i := 0
	for ; len(key)-i > 12; i += 12 {
		a += word(i)
		b += word(i + 4)
		c += word(i + 8)
		a -= c
		a ^= bits.RotateLeft32(c, 4)
		c += b
		b -= a
		b ^= bits.RotateLeft32(a, 6)
		a += c
		c -= b
		c ^= bits.RotateLeft32(b, 8)
		b += a
		a -= c
		a ^= bits.RotateLeft32(c, 16)
		c += b
		b -= a
		b ^= bits.RotateLeft32(a, 19)
		a += c
		c -= b
		c ^= bits.RotateLeft32(b, 4)
		b += a
	}
	if i == len(key) {
		return int16(c ^ b)
	}
	a += word(i)
	b += word(i + 4)
	c += word(i + 8)
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return int16(c ^ b)
}
