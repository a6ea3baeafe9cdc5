-- Limits of requests at work, of their time and of classes of routes: the default plans get numbers of their own where nobody has set any. Other
-- plans have the defaults of core::plan::Limits.
UPDATE catalog.plan AS p SET limits = d.limits || p.limits, version = p.version + 1, updated_at = now()
FROM (VALUES
    ('bronze', '{"max_concurrent_requests":20,"request_timeout_ms":15000,"route_classes":{"export":{"requests_per_second":1,"request_burst":2,"max_concurrent_requests":1,"cost":5}}}'::jsonb),
    ('silver', '{"max_concurrent_requests":50,"request_timeout_ms":30000,"route_classes":{"export":{"requests_per_second":2,"request_burst":5,"max_concurrent_requests":2,"cost":5}}}'),
    ('gold', '{"max_concurrent_requests":200,"request_timeout_ms":60000,"route_classes":{"export":{"requests_per_second":10,"request_burst":20,"max_concurrent_requests":4,"cost":5}}}'),
    ('platinum', '{"max_concurrent_requests":500,"request_timeout_ms":120000,"route_classes":{"export":{"requests_per_second":50,"request_burst":100,"max_concurrent_requests":8,"cost":5}}}')
) AS d (name, limits)
WHERE p.name = d.name;
