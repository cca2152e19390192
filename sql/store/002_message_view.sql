-- The message table as rows. Filter by `stream`, `day` and `first_seq` where you can: every other filter unfolds all blocks.
-- Unfolding stays in text: UNCOMPRESS gives bytes, which no JSON function takes.
CREATE OR REPLACE SQL SECURITY INVOKER VIEW message AS
SELECT b.stream,
       b.first_seq + m.number - 1 AS seq,
       b.day,
       b.first_seq,
       m.table_schema,
       m.table_name,
       m.op,
       m.row_key,
       m.before_image,
       m.after_image,
       COALESCE(m.origin, 'user') AS origin,
       JSON_EXTRACT(b.seen, CONCAT('$[', m.seen, ']')) AS seen,
       CASE WHEN f.seq IS NOT NULL THEN 'failed'
            WHEN o.status IS NOT NULL THEN o.status
            WHEN b.first_seq + m.number - 1 <= s.settled_seq THEN 'applied'
            ELSE 'pending' END AS status,
       m.committed_at,
       b.captured_at,
       m.source_position,
       m.event_index,
       b.pair,
       b.last_seq,
       m.effective_clock
FROM message_block b
JOIN stream s ON s.pair = b.pair AND s.stream = b.stream
JOIN JSON_TABLE(CONVERT(UNCOMPRESS(b.payload) USING utf8mb4), '$[*]' COLUMNS (
       number          FOR ORDINALITY,
       table_schema    VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.d',
       table_name      VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.n',
       op              VARCHAR(8) CHARACTER SET utf8mb4 PATH '$.o',
       row_key         JSON PATH '$.k',
       before_image    JSON PATH '$.b',
       after_image     JSON PATH '$.a',
       origin          VARCHAR(8) CHARACTER SET utf8mb4 PATH '$.g',
       seen            INT UNSIGNED PATH '$.s',
       committed_at    DATETIME(6) PATH '$.c',
       source_position VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$.p',
       event_index     INT UNSIGNED PATH '$.i',
       effective_clock BIGINT PATH '$.e')) m
LEFT JOIN outcome o ON o.pair = b.pair AND o.stream = b.stream AND o.seq = b.first_seq + m.number - 1
LEFT JOIN failure f ON f.pair = b.pair AND f.stream = b.stream AND f.seq = b.first_seq + m.number - 1;
