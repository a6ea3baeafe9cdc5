// An application in JavaScript behind Insula's gateway: every request has its tenant, proven, or is refused.
//
//     npm ci
//     INSULA_JWKS_URL=http://127.0.0.1:PORT/.well-known/jwks.json INSULA_CELL=main node app.mjs
//
// The gateway puts a signed token into the header `Insula-Tenant-Context`; a client's own copy never gets through. The token is a
// JWT (EdDSA), good for 45 seconds and for the applications of one cell.
import { createServer } from 'node:http';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const audience = `insula-app:${process.env.INSULA_CELL}`;
// Fetched once and kept; a key id that is not known is looked for again, at most every five seconds.
const keys = createRemoteJWKSet(new URL(process.env.INSULA_JWKS_URL), {
  cooldownDuration: 5_000,
  cacheMaxAge: 300_000,
  timeoutDuration: 3_000,
});

/** The claims of the one tenant context that holds: `tid`, `slug`, `plan`, and, when somebody is logged in, `sub` and `scope`. */
export async function tenantContext(request) {
  // Node joins copies with commas; a token has none.
  const token = request.headers['insula-tenant-context'] ?? '';
  const { payload } = await jwtVerify(token, keys, {
    algorithms: ['EdDSA'], // and no other, whatever the token says
    audience,
    issuer: 'insula-gateway',
    typ: 'insula-context+jwt',
    clockTolerance: 5,
    requiredClaims: ['exp', 'iat', 'tid', 'slug'],
  });
  return payload;
}

const server = createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
  try {
    const context = await tenantContext(request);
    answer(200, { tenant: context.slug, plan: context.plan, principal: context.sub ?? null });
  } catch {
    // Why stays in our log: the answer is for strangers.
    answer(401, { error: 'come through the gateway' });
  }
});

server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
