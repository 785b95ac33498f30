// npm resend: every method that transactional mail uses, once as it should be and once as it should not.
import { Resend } from 'resend'
import { Webhook } from 'standardwebhooks'
import { answer, given } from './given.mjs'

const resend = new Resend(given.key, { baseUrl: given.url })
const { apiKeys, batch, domains, emails, logs, suppressions, templates, webhooks } = resend
const nobody = '01900000-0000-7000-8000-000000000000'
const from = `Shop <orders@${given.domain}>`
const mail = { from, to: 'delivered@simulator.test', subject: 'Grüße 🎉', text: 'Hi' }
const inAnHour = new Date(Date.now() + 3600e3).toISOString()
const file = { filename: 'a.txt', content: Buffer.from('attached') }

const good = {}
const bad = {}
const well = async (name, call) => (good[name] = await call).data
const badly = async (name, call) => (bad[name] = (await call).error)

const sent = await well('emails.send', emails.send({ ...mail, attachments: [file] }))
await badly('emails.send', emails.send({ ...mail, to: 'nobody' }))
const later = await well('emails.create', emails.create({ ...mail, scheduledAt: inAnHour }))
await badly('emails.create', emails.create({ ...mail, from: 'a@elsewhere.example' }))
await well('emails.get', emails.get(sent.id))
await badly('emails.get', emails.get(nobody))
await well('emails.list', emails.list({ limit: 1 }))
await badly('emails.list', emails.list({ limit: 1000 }))
await well('emails.update', emails.update({ id: later.id, scheduledAt: 'in 2 hours' }))
await badly('emails.update', emails.update({ id: later.id, scheduledAt: 'whenever' }))
await well('emails.cancel', emails.cancel(later.id))
await badly('emails.cancel', emails.cancel(later.id))
await well('emails.metrics', emails.metrics({ granularity: 'daily', metrics: ['sent'] }))
await badly('emails.metrics', emails.metrics({ granularity: 'year' }))
const [own] = (await well('emails.attachments.list', emails.attachments.list({ emailId: sent.id }))).data
await badly('emails.attachments.list', emails.attachments.list({ emailId: nobody }))
await well('emails.attachments.get', emails.attachments.get({ emailId: sent.id, id: own.id }))
await badly('emails.attachments.get', emails.attachments.get({ emailId: sent.id, id: nobody }))

await well('batch.send', batch.send([mail, mail]))
await badly('batch.send', batch.send([mail, { ...mail, to: 'nobody' }]))
await well('batch.create', batch.create([mail, { ...mail, to: 'nobody' }], { batchValidation: 'permissive' }))
await badly('batch.create', batch.create([]))

const { receiving } = emails
const [{ id: came }] = (await well('emails.receiving.list', receiving.list())).data
await badly('emails.receiving.list', receiving.list({ after: 'x' }))
const read = await well('emails.receiving.get', receiving.get(came, { html_format: 'cid' }))
await badly('emails.receiving.get', receiving.get(nobody))
const [part] = (await well('emails.receiving.attachments.list', receiving.attachments.list({ emailId: came }))).data
await badly('emails.receiving.attachments.list', receiving.attachments.list({ emailId: nobody }))
await well('emails.receiving.attachments.get', receiving.attachments.get({ emailId: came, id: part.id }))
await badly('emails.receiving.attachments.get', receiving.attachments.get({ emailId: came, id: nobody }))
const forward = { emailId: came, from, to: 'delivered@simulator.test' }
await well('emails.receiving.forward', receiving.forward(forward))
await badly('emails.receiving.forward', receiving.forward({ ...forward, emailId: nobody }))
await well('emails.receiving.forwardPassthrough', receiving.forwardPassthrough(read, { ...forward, subject: read.subject }, {}))
await badly('emails.receiving.forwardPassthrough', receiving.forwardPassthrough(read, { ...forward, subject: 'x', to: 'nobody' }, {}))
await well('emails.receiving.forwardWrapped', receiving.forwardWrapped(read, { ...forward, subject: 'Fwd', text: 'See below.' }, {}))
await badly('emails.receiving.forwardWrapped', receiving.forwardWrapped(read, { ...forward, subject: 'Fwd', text: 'x', to: 'nobody' }, {}))
await well(
  'emails.receiving.downloadRaw',
  receiving.downloadRaw(read.raw.download_url).then((raw) => ({ ...raw, data: { octets: raw.content?.byteLength } })),
)
await badly('emails.receiving.downloadRaw', receiving.downloadRaw(`${given.url}/emails/receiving/${came}/files/${nobody}`))

const welcome = { name: 'Welcome', alias: 'welcome', subject: 'Hi {{{NAME}}}', html: '<p>{{{NAME}}}</p>' }
const variables = [{ key: 'NAME', type: 'string', fallbackValue: 'there' }]
const made = await well('templates.create', templates.create({ ...welcome, from, variables }))
await badly('templates.create', templates.create({ name: 'x', html: '{% if A %}' }))
await well('templates.performCreate', templates.performCreate({ ...welcome, alias: 'other' }))
await badly('templates.performCreate', templates.performCreate({ ...welcome, variables }))
await well('templates.update', templates.update('welcome', { name: 'Welcome here' }))
await badly('templates.update', templates.update(nobody, { name: 'x' }))
await well('templates.get', templates.get('welcome'))
await badly('templates.get', templates.get('nothing'))
await well('templates.list', templates.list({ limit: 1 }))
await badly('templates.list', templates.list({ limit: 1000 }))
await well('templates.publish', templates.publish(made.id))
await badly('templates.publish', templates.publish('nothing'))
await well('template of a mail', emails.send({ to: mail.to, template: { id: 'welcome', variables: { NAME: 'Ada' } } }))
const copy = await well('templates.duplicate', templates.duplicate('welcome'))
await badly('templates.duplicate', templates.duplicate('nothing'))
await well('templates.remove', templates.remove(copy.id))
await badly('templates.remove', templates.remove(copy.id))

await well('suppressions.add', suppressions.add({ email: 'gone@one.test' }))
await badly('suppressions.add', suppressions.add({ email: 'nobody' }))
await well('suppressions.get', suppressions.get('gone@one.test'))
await badly('suppressions.get', suppressions.get('other@one.test'))
await well('suppressions.list', suppressions.list({ origin: 'manual' }))
await badly('suppressions.list', suppressions.list({ origin: 'weather' }))
await well('suppressions.remove', suppressions.remove('gone@one.test'))
await badly('suppressions.remove', suppressions.remove('gone@one.test'))
await well('suppressions.batch.add', suppressions.batch.add({ emails: ['a@one.test', 'b@one.test'] }))
await badly('suppressions.batch.add', suppressions.batch.add({ emails: ['nobody'] }))
await well('suppressions.batch.remove', suppressions.batch.remove({ emails: ['a@one.test'] }))
await badly('suppressions.batch.remove', suppressions.batch.remove({ emails: [] }))

const endpoint = 'https://app.example.com/hook'
const hook = await well('webhooks.create', webhooks.create({ endpoint, events: ['email.sent'] }))
await badly('webhooks.create', webhooks.create({ endpoint: 'ftp://app.example.com', events: [] }))
await well('webhooks.get', webhooks.get(hook.id))
await badly('webhooks.get', webhooks.get(nobody))
await well('webhooks.list', webhooks.list({ limit: 1 }))
await badly('webhooks.list', webhooks.list({ limit: 'x' }))
await emails.send(mail)
const [event] = (await well('webhooks.events.list', webhooks.events.list({ webhookId: hook.id, limit: 1 }))).data
await badly('webhooks.events.list', webhooks.events.list({ webhookId: nobody }))
const of = { webhookId: hook.id, eventId: event.id }
await well('webhooks.events.get', webhooks.events.get(of))
await badly('webhooks.events.get', webhooks.events.get({ ...of, eventId: nobody }))
await well('webhooks.events.replay', webhooks.events.replay(of))
await badly('webhooks.events.replay', webhooks.events.replay({ ...of, eventId: nobody }))
await well('webhooks.events.attempts.list', webhooks.events.attempts.list(of))
await badly('webhooks.events.attempts.list', webhooks.events.attempts.list({ ...of, eventId: nobody }))
await well('webhooks.update', webhooks.update(hook.id, { status: 'disabled' }))
await badly('webhooks.update', webhooks.update(hook.id, { events: ['email.nothing'] }))
const { signing_secret: webhookSecret } = await well('webhooks.rotateSigningSecret', webhooks.rotateSigningSecret(hook.id))
await badly('webhooks.rotateSigningSecret', webhooks.rotateSigningSecret(nobody))
const timestamp = new Date()
const signed = new Webhook(webhookSecret).sign('msg_1', timestamp, '{"type":"email.sent"}')
const headers = { id: 'msg_1', timestamp: String(Math.floor(timestamp / 1000)), signature: signed }
const verify = async (payload) => {
  try {
    return { data: webhooks.verify({ payload, headers, webhookSecret }), error: null }
  } catch (error) {
    return { error: { name: error.name } }
  }
}
await well('webhooks.verify', verify('{"type":"email.sent"}'))
await badly('webhooks.verify', verify('{"type":"email.bounced"}'))
await well('webhooks.remove', webhooks.remove(hook.id))
await badly('webhooks.remove', webhooks.remove(hook.id))

const domain = await well('domains.create', domains.create({ name: given.name }))
await badly('domains.create', domains.create({ name: 'co.uk' }))
await well('domains.get', domains.get(domain.id))
await badly('domains.get', domains.get(nobody))
await well('domains.list', domains.list())
await badly('domains.list', domains.list({ limit: 1000 }))
await well('domains.update', domains.update({ id: domain.id, openTracking: true }))
await badly('domains.update', domains.update({ id: domain.id, tls: 'sometimes' }))
await well('domains.verify', domains.verify(domain.id))
await badly('domains.verify', domains.verify(nobody))
const claim = await well('domains.claims.create', domains.claims.create({ name: `claimed-${given.name}` }))
await badly('domains.claims.create', domains.claims.create({ name: 'com' }))
await well('domains.claims.get', domains.claims.get(claim.domain_id))
await badly('domains.claims.get', domains.claims.get(nobody))
await well('domains.claims.verify', domains.claims.verify(claim.domain_id))
await badly('domains.claims.verify', domains.claims.verify(nobody))

const key = await well('apiKeys.create', apiKeys.create({ name: 'shop', permission: 'sending_access', domain_id: domain.id }))
await badly('apiKeys.create', apiKeys.create({ name: '' }))
await well('apiKeys.list', apiKeys.list())
await badly('apiKeys.list', apiKeys.list({ limit: 1000 }))
await well('apiKeys.update', apiKeys.update(key.id, { name: 'web shop' }))
await badly('apiKeys.update', apiKeys.update(nobody, { name: 'x' }))
await well('apiKeys.remove', apiKeys.remove(key.id))
await badly('apiKeys.remove', apiKeys.remove(key.id))
await well('domains.remove', domains.remove(domain.id))
await badly('domains.remove', domains.remove(domain.id))

// written off the requests' path
let noted = []
for (let i = 0; i < 300 && !noted.length; i++) {
  noted = (await well('logs.list', logs.list())).data
  await new Promise((go) => setTimeout(go, 100))
}
await badly('logs.list', logs.list({ limit: 'x' }))
await well('logs.get', logs.get(noted[0].id))
await badly('logs.get', logs.get(nobody))

// what Resend has beside mail is no part of this
await badly('emails.share', emails.share(sent.id))
await badly('usage.get', resend.usage.get())

const methods = []
const walk = (part, path) => {
  for (const [name, member] of Object.entries(part)) {
    if (!member || typeof member !== 'object' || member === resend || member.constructor === Object || member instanceof Headers) continue
    for (const method of Object.getOwnPropertyNames(Object.getPrototypeOf(member)))
      if (method !== 'constructor' && typeof member[method] === 'function') methods.push(`${path}${name}.${method}`)
    walk(member, `${path}${name}.`)
  }
}
walk(resend, '')
answer({ good, bad, methods })
