-- The latest value of each key: where each order is. The events of a key are in one
-- partition, and so its sequence numbers say which is the latest.
WITH latest AS (SELECT key, arg_max(body->>'status', sequence) AS status FROM deliveries GROUP BY key)
SELECT status, count(*) AS orders, min(key) AS for_example
FROM latest
GROUP BY status
ORDER BY status;
