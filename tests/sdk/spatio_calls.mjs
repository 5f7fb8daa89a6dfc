// Makes every call that the published TypeScript client has, and the mistakes that can
// be made; `spatio_calls.py` says how it is run.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';

const spatio = createRequire(`${process.env.SDK_NPM}/package.json`)('@spatio-labs/spatio-ts');

const world = JSON.parse(process.env.WORLD);
const now = new Date(world.now);
const later = new Date('2031-01-02T03:04:05Z');
const byId = { org: world.organization.id, workspace: world.workspace.id };
const bySlug = { org: world.organization.slug, workspace: world.workspace.slug };
const odd = 'nope/../x y';
const unknown = '0198c0de-0000-7000-8000-00000000000a';
const secrets = [];

function api(accessToken) {
    const configuration = new spatio.Configuration({ basePath: world.base, accessToken });
    return new spatio.PersonalAccessTokensApi(configuration);
}

// What a call gives, with this status.
async function answered(status, caller, call, request) {
    const response = await caller[`${call}Raw`](request);
    assert.equal(response.raw.status, status, call);
    const text = await response.raw.clone().text();
    if (status === 204) assert.equal(text, '', call);
    assert(!secrets.some((secret) => text.includes(secret)), `${call} shows a secret again`);
    return response.value();
}

// A refusal has a sentence for people, and a code where there is one.
async function refused(status, code, caller, call, request) {
    const asked = `${call} ${JSON.stringify(request)}`;
    const error = await caller[call](request).then(
        () => assert.fail(`${asked} is answered`),
        (error) => error,
    );
    assert(error instanceof spatio.ResponseError, `${asked}: ${error}`);
    assert.equal(error.response.status, status, asked);
    const body = spatio.ApiErrorFromJSON(await error.response.json());
    assert.equal(typeof body.error, 'string', asked);
    assert.equal(body.code, code, asked);
}

const member = api(world.token);
const outsider = api(world.outsider);
const admin = api(world.admin);
const before = (await member.listPersonalAccessTokens()).tokens.map((pat) => pat.id);

// One's own tokens. What is null is undefined to this client.
const { scopes } = await answered(200, member, 'listAvailablePATScopes');
assert.deepEqual(scopes, world.scopes);

const makeOwn = (createPATRequest) =>
    answered(201, member, 'createPersonalAccessToken', { createPATRequest });
let made = await makeOwn({ name: 'least' });
const [least, leastToken] = [made.pat, made.token];
secrets.push(leastToken);
assert(least.tokenPrefix.startsWith('pat_') && least.tokenPrefix !== leastToken);
assert(leastToken.startsWith(least.tokenPrefix));
const nothing = { workspaceId: undefined, lastUsedAt: undefined, expiresAt: undefined };
const { id, tokenPrefix } = least;
const expected = { name: 'least', description: '', scopes: [], createdAt: now };
assert.deepEqual(least, { id, tokenPrefix, ...nothing, ...expected });

const all = {
    name: 'most',
    description: 'all that there is',
    scopes: ['read:notes'],
    workspaceId: world.workspace.id,
    expiresAt: later,
};
made = await makeOwn(all);
const [most, mostToken] = [made.pat, made.token];
secrets.push(mostToken);
assert.deepEqual({ ...most, ...all, createdAt: now, lastUsedAt: undefined }, most);

let listed = await answered(200, member, 'listPersonalAccessTokens');
assert.deepEqual(listed.availableScopes, scopes);
assert.equal(listed.tokens.length, before.length + 2);
for (const pat of [least, most]) {
    assert.deepEqual(listed.tokens.find((other) => other.id === pat.id), pat);
}

const updateOwn = (updatePATRequest) =>
    answered(200, member, 'updatePersonalAccessToken', { id: most.id, updatePATRequest });
most.name = 'most of all';
assert.deepEqual(await updateOwn({ name: 'most of all' }), most);
assert.deepEqual(await updateOwn({}), most);
most.description = '';
assert.deepEqual(await updateOwn({ description: '' }), most);

// Those of a workspace.
const bodyOf = (requestBody) => ({ ...byId, requestBody });
made = await answered(
    201,
    member,
    'workspaceCreatePAT',
    bodyOf({ name: 'bound', scopes: ['read:notes'], expiresAt: later }),
);
assert.deepEqual(Object.keys(made).sort(), ['pat', 'token']);
const [bound, boundToken] = [made.pat, made.token];
secrets.push(boundToken);
const model = spatio.PersonalAccessTokenFromJSON(bound);
const given = { name: 'bound', description: '', scopes: ['read:notes'], expiresAt: later };
const place = { workspaceId: world.workspace.id, createdAt: now, lastUsedAt: undefined };
assert.deepEqual({ ...model, ...given, ...place }, model);
assert.equal(bound.lastUsedAt, null);
assert(boundToken.startsWith(bound.tokenPrefix));

for (const names of [byId, bySlug]) {
    listed = await answered(200, member, 'workspaceListPATs', names);
    assert.deepEqual(Object.keys(listed).sort(), ['availableScopes', 'tokens']);
    assert.deepEqual(listed.tokens.map((pat) => pat.name).sort(), ['bound', 'most of all']);
    assert.deepEqual(listed.tokens.find((pat) => pat.id === bound.id), bound);
}

const updateBound = (names, requestBody) =>
    answered(200, member, 'workspaceUpdatePAT', { ...names, id: bound.id, requestBody });
Object.assign(bound, { name: 'bound still', description: 'd' });
assert.deepEqual(await updateBound(bySlug, { name: 'bound still', description: 'd' }), bound);
bound.description = '';
assert.deepEqual(await updateBound(bySlug, { description: '' }), bound);
const narrowed = { ...bodyOf({ scopes }), id: bound.id };
await refused(400, 'INVALID_ARGUMENT', member, 'workspaceUpdatePAT', narrowed);
assert.deepEqual(await updateBound(byId, {}), bound);

// What nobody may do. None of it makes or changes anything.
const named = { name: 'n' };
for (const [caller, code] of [
    [api(), 'CALLER_TOKEN_MISSING'],
    [api(world.unknown), 'CALLER_TOKEN_REFUSED'],
    [api('pat_'), 'CALLER_TOKEN_REFUSED'],
]) {
    for (const [call, request] of [
        ['listAvailablePATScopes'],
        ['listPersonalAccessTokens'],
        ['createPersonalAccessToken', { createPATRequest: named }],
        ['updatePersonalAccessToken', { id, updatePATRequest: named }],
        ['revokePersonalAccessToken', { id }],
        ['workspaceListPATs', byId],
        ['workspaceCreatePAT', bodyOf(named)],
        ['workspaceUpdatePAT', { ...bodyOf(named), id: bound.id }],
        ['workspaceRevokePAT', { ...byId, id: bound.id }],
    ]) {
        await refused(401, code, caller, call, request);
    }
}

for (const createPATRequest of [
    { name: ' ' },
    { ...named, scopes: ['no scope'] },
    { ...named, scopes: ['fly:notes'] },
    { ...named, expiresAt: now },
    { ...named, expiresAt: new Date('2001-02-03') },
]) {
    const request = { createPATRequest };
    await refused(400, 'INVALID_ARGUMENT', member, 'createPersonalAccessToken', request);
}
for (const [code, createPATRequest] of [
    ['NOT_A_MEMBER', { ...named, workspaceId: world.workspace.id }],
    ['EXCEEDS_CALLER', { ...named, scopes: ['read:notes'] }],
]) {
    await refused(403, code, outsider, 'createPersonalAccessToken', { createPATRequest });
}
for (const body of [{}, { name: ' ' }, { name: 7 }, { ...named, expiresAt: 'tomorrow' }]) {
    await refused(400, 'INVALID_ARGUMENT', member, 'workspaceCreatePAT', bodyOf(body));
}

for (const id of [unknown, odd, world.foreign]) {
    const changed = { id, updatePATRequest: named };
    await refused(404, undefined, member, 'updatePersonalAccessToken', changed);
    await refused(404, undefined, member, 'revokePersonalAccessToken', { id });
    await refused(404, undefined, member, 'workspaceUpdatePAT', { ...bodyOf(named), id });
    await refused(404, undefined, member, 'workspaceRevokePAT', { ...byId, id });
}

for (const [caller, names, status, code] of [
    [outsider, byId, 403, 'CALLER_ROLE'],
    [outsider, bySlug, 403, 'CALLER_ROLE'],
    // That there is no such workspace is told to administrators alone.
    [member, { ...bySlug, workspace: 'nowhere' }, 403, 'CALLER_ROLE'],
    [member, { ...bySlug, org: 'nobody' }, 403, 'CALLER_ROLE'],
    [admin, { ...bySlug, workspace: 'nowhere' }, 404, undefined],
    [admin, { ...bySlug, org: odd }, 404, undefined],
    [admin, { ...byId, workspace: odd }, 404, undefined],
]) {
    const changed = { ...names, requestBody: named, id: bound.id };
    await refused(status, code, caller, 'workspaceListPATs', names);
    await refused(status, code, caller, 'workspaceCreatePAT', { ...names, requestBody: named });
    await refused(status, code, caller, 'workspaceUpdatePAT', changed);
    await refused(status, code, caller, 'workspaceRevokePAT', { ...names, id: bound.id });
}

console.log(JSON.stringify({ least: leastToken, most: mostToken, bound: boundToken }));
await once(process.stdin, 'data');
process.stdin.destroy();

await answered(204, member, 'revokePersonalAccessToken', { id });
await answered(204, member, 'workspaceRevokePAT', { ...bySlug, id: bound.id });
await refused(404, undefined, member, 'revokePersonalAccessToken', { id });
await refused(404, undefined, member, 'workspaceRevokePAT', { ...byId, id: bound.id });
await refused(401, 'CALLER_TOKEN_REFUSED', api(leastToken), 'listAvailablePATScopes');
listed = await answered(200, member, 'listPersonalAccessTokens');
const left = listed.tokens.map((pat) => pat.id).sort();
assert.deepEqual(left, [...before, most.id].sort());
