// usage: pgboss.mjs <setup|insert1 N|insertb N [size]|consume N workers [batch]>
import PgBoss from 'pg-boss'
const cs = process.env.DATABASE_URL, [cmd, ...a] = process.argv.slice(2), queue = 'noop', POOL = 10
const now = () => performance.now() / 1000, out = o => console.log(JSON.stringify(o))
// What it does beside the jobs (expiring, archiving, cron) is switched off.
const boss = new PgBoss({ connectionString: cs, max: cmd === 'consume' ? +a[1] + 1 : POOL, supervise: false, schedule: false })
boss.on('error', e => { console.error(e); process.exit(1) })
await boss.start()
const job = i => ({ name: queue, data: { t: 'a', i } })
if (cmd === 'setup') { await boss.createQueue(queue); await boss.clearStorage() }
if (cmd === 'insert1') { const n = +a[0]; let i = 0; const t0 = now(); await Promise.all(Array.from({ length: POOL }, async () => { while (i < n) { const k = i++; await boss.send(queue, { t: 'a', i: k }) } })); out({ jobs_s: n / (now() - t0) }) }
if (cmd === 'insertb') { const n = +a[0], size = +(a[1] || 1000), t0 = now(); for (let i = 0; i < n; i += size) await boss.insert(Array.from({ length: Math.min(size, n - i) }, (_, k) => job(i + k))); out({ jobs_s: n / (now() - t0) }) }
if (cmd === 'consume') {
  const n = +a[0], workers = +a[1], batchSize = +(a[2] || 1000); let done = 0, fin; const p = new Promise(r => fin = r)
  // So that plans do not hang on when the server came by; ours are seen to, too.
  await boss.getDb().executeSql('vacuum analyze pgboss.job')
  const t0 = now()
  // A worker rests for half a second after each batch unless it is told to go on.
  for (let w = 0; w < workers; w++) { const id = await boss.work(queue, { batchSize, pollingIntervalSeconds: 0.5, priority: false }, async jobs => { done += jobs.length; boss.notifyWorker(id); if (done >= n) fin() }) }
  await p
  // Batches are noted as done after their handlers, which no worker waits for: the last ones are still on their way, and so not consumed.
  while (await boss.getQueueSize(queue, { before: 'completed' }) > 0) await new Promise(r => setTimeout(r, 2))
  out({ jobs_s: n / (now() - t0) }); process.exit(0)
}
await boss.stop({ graceful: false })
