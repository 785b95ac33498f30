// The verifiers of npm svix, standardwebhooks, resend and @sendgrid/eventwebhook over POSTs that were really made.
import { EventWebhook } from '@sendgrid/eventwebhook'
import { Resend } from 'resend'
import { Webhook as StandardWebhook } from 'standardwebhooks'
import { Webhook as SvixWebhook } from 'svix'
import { answer, given } from './given.mjs'

const { native, sendgrid } = given
const refused = (verify) => {
  try {
    verify()
    return false
  } catch {
    return true
  }
}
const h = native.headers
const resend = (payload) =>
  new Resend('re_x').webhooks.verify({
    payload,
    headers: { id: h['svix-id'], timestamp: h['svix-timestamp'], signature: h['svix-signature'] },
    webhookSecret: native.secret,
  })
const verifier = new EventWebhook()
const twilio = (payload) =>
  verifier.verifySignature(
    verifier.convertPublicKeyToECDSA(sendgrid.secret),
    payload,
    sendgrid.headers['x-twilio-email-event-webhook-signature'],
    sendgrid.headers['x-twilio-email-event-webhook-timestamp'],
  )

answer({
  svix: new SvixWebhook(native.secret).verify(native.body, h),
  standard: new StandardWebhook(native.secret).verify(native.body, h),
  resend: resend(native.body),
  sendgrid: twilio(sendgrid.body),
  altered: [
    refused(() => new SvixWebhook(native.secret).verify(native.body + ' ', h)),
    refused(() => new StandardWebhook(native.secret).verify(native.body + ' ', h)),
    refused(() => resend(native.body + ' ')),
    twilio(sendgrid.body + ' ') === false,
  ],
})
