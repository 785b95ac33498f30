// npm resend: emails, batch, lists, errors, webhooks.
import { Resend } from 'resend'
import { answer, given } from './given.mjs'

const resend = new Resend(given.key, { baseUrl: given.url })
const from = `Shop <orders@${given.domain}>`
const mail = { from, to: ['delivered@simulator.test'], subject: 'Grüße 🎉', text: 'Hi', html: '<p>Hi</p>' }

const sent = await resend.emails.send(
  {
    ...mail,
    cc: 'cc@simulator.test',
    bcc: ['bcc@simulator.test'],
    replyTo: 'help@simulator.test',
    headers: { 'X-Order': '17' },
    attachments: [
      { filename: 'a.txt', content: Buffer.from('attached') },
      { filename: 'logo.png', content: Buffer.from('png').toString('base64'), contentId: 'logo' },
    ],
    tags: [{ name: 'kind', value: 'order' }],
  },
  { idempotencyKey: `order-${given.domain}` },
)
const batch = await resend.batch.send([mail, mail])
const permissive = await resend.batch.send([mail, { ...mail, to: 'nobody' }], { batchValidation: 'permissive' })
const later = await resend.emails.send({ ...mail, scheduledAt: new Date(Date.now() + 3600e3).toISOString() })
const hook = await resend.webhooks.create({ endpoint: 'https://app.example.com/hook', events: ['email.delivered'] })
const hooks = await resend.webhooks.list()

answer({
  sent,
  got: await resend.emails.get(sent.data.id),
  list: await resend.emails.list({ limit: 2 }),
  batch,
  permissive,
  later,
  hook,
  hookGot: await resend.webhooks.get(hook.data.id),
  hooks,
  hookChanged: await resend.webhooks.update(hook.data.id, { events: ['email.sent'], status: 'disabled' }),
  hookGone: await resend.webhooks.remove(hook.data.id),
  domains: await resend.domains.list(),
  invalid: await resend.emails.send({ ...mail, to: 'nobody' }),
  foreign: await resend.emails.send({ ...mail, from: 'a@elsewhere.example' }),
  unknown: await resend.emails.get('01900000-0000-7000-8000-000000000000'),
  wrongKey: await new Resend('re_wrong', { baseUrl: given.url }).emails.send(mail),
})
