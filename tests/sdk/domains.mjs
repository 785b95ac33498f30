// npm resend: domains, claims and API keys, every method.
import { Resend } from 'resend'
import { answer, given } from './given.mjs'

const resend = new Resend(given.key, { baseUrl: given.url })
const { domains, apiKeys } = resend
const nobody = '01900000-0000-7000-8000-000000000000'

const made = await domains.create({
  name: given.name,
  region: 'eu-west-1',
  customReturnPath: 'bounces',
  trackingSubdomain: 'go',
  openTracking: true,
  tls: 'enforced',
  capabilities: { sending: 'enabled' },
})
const { id } = made.data
const claim = await domains.claims.create({ name: `claimed-${given.name}` })
const key = await apiKeys.create({ name: 'shop', permission: 'sending_access', domain_id: id })

answer({
  made,
  verified: await domains.verify(id),
  changed: await domains.update({ id, clickTracking: true, tls: 'opportunistic' }),
  got: await domains.get(id),
  list: await domains.list({ limit: 1 }),
  claim,
  claimGot: await domains.claims.get(claim.data.domain_id),
  claimVerified: await domains.claims.verify(claim.data.domain_id),
  key,
  keyChanged: await apiKeys.update(key.data.id, { name: 'web shop' }),
  keys: await apiKeys.list(),
  keyGone: await apiKeys.remove(key.data.id),
  gone: await domains.remove(id),
  suffix: await domains.create({ name: 'co.uk' }),
  unknown: await domains.get(nobody),
  unknownVerified: await domains.verify(nobody),
  unknownKey: await apiKeys.remove(nobody),
  badKey: await apiKeys.create({ name: '' }),
})
