// A real OpenID Connect provider: programs log in by client credentials and get signed access tokens (RFC 9068) for `docs`.
// SIGHUP: new keys, as in a rotation.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const kinds = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};

function keys() {
  return Object.entries(kinds).map(([alg, make]) => ({
    ...make().privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: randomUUID(),
  }));
}

function provider(issuer) {
  return new Provider(issuer, {
    jwks: { keys: keys() },
    clients: Object.keys(kinds).map((alg) => ({
      client_id: `program-${alg}`, client_secret: 'a secret of the test', grant_types: ['client_credentials'], redirect_uris: [],
      response_types: [],
    })),
    scopes: ['read', 'write'],
    extraTokenClaims: () => ({ tenants: ['acme', 'globex'], org: { id: 'acme-org' } }),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource, client) => ({
          scope: 'read write',
          audience: resource === 'urn:other' ? 'other' : 'docs',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 600,
          jwt: { sign: { alg: client.clientId.replace('program-', '') } },
        }),
      },
    },
  });
}

let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer).callback();
  process.on('SIGHUP', () => {
    answer = provider(issuer).callback();
    console.log('rotated');
  });
  console.log(`listening on ${issuer}`);
});
