-- What was captured, and when it was enqueued: the columns of the files themselves.
SELECT 'payments' AS hub, partition, count(*) AS events, min(sequence) AS first, max(sequence) AS last,
       date_trunc('second', min(enqueued)) AS since, date_trunc('second', max(enqueued)) AS until
FROM payments GROUP BY ALL
UNION ALL
SELECT 'deliveries', partition, count(*), min(sequence), max(sequence),
       date_trunc('second', min(enqueued)), date_trunc('second', max(enqueued))
FROM deliveries GROUP BY ALL
ORDER BY hub DESC, partition;
