-- Two hubs joined: what was paid for, and how long its delivery took, by city.
SELECT p.body->>'city' AS city,
       count(*) AS orders,
       count(d.at) AS delivered,
       (avg(epoch(d.at - (p.body->>'at')::TIMESTAMP)) / 60)::DECIMAL(9, 1) AS minutes_to_door
FROM payments p
LEFT JOIN (SELECT body->>'order' AS order_id, (body->>'at')::TIMESTAMP AS at
           FROM deliveries WHERE body->>'status' = 'delivered') d ON d.order_id = p.body->>'order'
GROUP BY city
ORDER BY city;
