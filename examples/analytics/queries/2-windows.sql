-- Counts in windows of a minute, by the time that the payment was made.
SELECT time_bucket(INTERVAL '1 minute', (body->>'at')::TIMESTAMP) AS minute,
       count(*) AS payments,
       sum((body->>'amount')::DECIMAL(12, 2)) AS amount
FROM payments
GROUP BY minute
ORDER BY minute;
