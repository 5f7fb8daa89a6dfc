// Asks about tokens as a service does that uses oauth4webapi; `spatio_calls.py` says how
// it is run.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';

const library = `${process.env.SDK_NPM}/node_modules/oauth4webapi/build/index.js`;
const oauth = await import(pathToFileURL(library));

const world = JSON.parse(process.env.WORLD);
const server = {
    issuer: world.base,
    introspection_endpoint: `${world.base}/oauth2/introspect`,
    revocation_endpoint: `${world.base}/oauth2/revoke`,
};
const client = { client_id: 'notes' };
const insecure = { [oauth.allowInsecureRequests]: true };

// As a client that presents a token of its own, as bearer or as its password.
const basic = (token) => oauth.ClientSecretBasic(token);
const bearer = (token) => (_server, _client, _body, headers) =>
    headers.set('authorization', `Bearer ${token}`);

async function introspect(authentication, token, more) {
    const asked = [server, client, authentication, token, { ...insecure, ...more }];
    const response = await oauth.introspectionRequest(...asked);
    return oauth.processIntrospectionResponse(server, client, response);
}

async function revoke(authentication, token) {
    const additionalParameters = { token_type_hint: 'access_token' };
    const asked = [server, client, authentication, token, { ...insecure, additionalParameters }];
    const response = await oauth.revocationRequest(...asked);
    assert.equal(await oauth.processRevocationResponse(response), undefined);
}

const ways = [basic(world.verifier), bearer(world.verifier)];
const inactive = { active: false };
for (const way of ways) {
    for (const { token, claims } of world.tokens) {
        assert.deepEqual(await introspect(way, token), claims);
        const additionalParameters = { token_type_hint: 'access_token' };
        assert.deepEqual(await introspect(way, token, { additionalParameters }), claims);
    }
    for (const token of [world.unknown, 'garbage', '%00', 'a b+c&token=d']) {
        assert.deepEqual(await introspect(way, token), inactive);
    }
}
// Who may not ask is told so, in a form that the library knows.
for (const [scheme, way] of Object.entries({ basic, bearer })) {
    await assert.rejects(introspect(way(world.other), world.tokens[0].token), (error) => {
        assert(error instanceof oauth.ResponseBodyError, error);
        assert.deepEqual([error.status, error.error], [403, 'unauthorized_client']);
        return true;
    });
    await assert.rejects(introspect(way(world.unknown), world.tokens[0].token), (error) => {
        assert(error instanceof oauth.WWWAuthenticateChallengeError, error);
        assert.deepEqual([error.status, error.cause[0].scheme], [401, scheme]);
        return true;
    });
}

console.log(JSON.stringify({ accepted: world.tokens.length }));
await once(process.stdin, 'data');

for (const { token } of world.tokens) {
    // To end it takes no more than to have it. A second time is no mistake.
    for (const authentication of [oauth.None(), basic(world.verifier)]) {
        await revoke(authentication, token);
        for (const way of ways) {
            assert.deepEqual(await introspect(way, token), inactive);
        }
    }
}
process.exit();
